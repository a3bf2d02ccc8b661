"""tljax beside PyTorch: the same model, data, order of the data, optimiser and batch, in turns in one process.

    python -m benchmarks.against_torch                          # every cell that is not there yet
    python -m benchmarks.against_torch --models vit-s minilm --methods full lora --batch 4 --out elsewhere
    python -m benchmarks.against_torch --table                  # run nothing
    python -m benchmarks.against_torch --device gpu --dtype bf16

A cell is a model and a method, a process and a JSON file of its own, and is not run again where it is there already.
Before anything is timed, both sides take the same first steps from the same weights, which go through
`tljax.models.export`, on the same batches, and their losses must agree. PyTorch runs eagerly and under `torch.compile`,
with the fused AdamW; tljax is `tl.fit` as it is, with its log and its checks. On CPU each has one thread, and what is
compared is the processor time of the process: on a machine that does other work, time on the clock tells little.

Networks that torch needs are those of transformers, with peft for LoRA; the ResNet is `networks.py`.
"""
