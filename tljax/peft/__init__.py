"""Small trees beside a frozen one: adapters are values, keyed by the leaf that they change."""

from tljax.peft.adapter import Adapter as Adapter
from tljax.peft.adapter import Adapters as Adapters
from tljax.peft.adapter import PeftError as PeftError
from tljax.peft.attach import attach as attach
from tljax.peft.attach import detach as detach
from tljax.peft.dora import DoRA as DoRA
from tljax.peft.dora import dora as dora
from tljax.peft.factors import Factored as Factored
from tljax.peft.full import Full as Full
from tljax.peft.full import full as full
from tljax.peft.ia3 import Scale as Scale
from tljax.peft.ia3 import ia3 as ia3
from tljax.peft.layout import Layout as Layout
from tljax.peft.lora import LoRA as LoRA
from tljax.peft.lora import lora as lora
from tljax.peft.merge import merge as merge
from tljax.peft.olora import olora as olora
from tljax.peft.pissa import pissa as pissa
from tljax.peft.table import count as count
from tljax.peft.table import join as join
from tljax.peft.table import table as table
from tljax.peft.vera import VeRA as VeRA
from tljax.peft.vera import vera as vera
