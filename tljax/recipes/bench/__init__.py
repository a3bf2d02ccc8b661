"""`tljax bench`: what a training step takes, beside what the device can do, measured so that it can be trusted."""

from tljax.recipes.bench.compare import compare_files as compare_files
from tljax.recipes.bench.run import run_bench as run_bench
from tljax.recipes.bench.settings import BenchSettings as BenchSettings
from tljax.recipes.bench.settings import bench_settings as bench_settings
