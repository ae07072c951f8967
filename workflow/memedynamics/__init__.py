"""What did SFT, DPO and GRPO each do to this vision-language model?"""

import gc
import logging
import os
import sys

# In jobs (environment.expose), most of a short one's time is importing. A fifth of that is looking for garbage where
# there is none: `job.run` turns the collector on again. A sixth is bitsandbytes, which PEFT imports wherever it is
# installed: where no job of the study needs it, it is as if it were not there.
if needed := os.environ.get("MEMEDYNAMICS_BITSANDBYTES"):
    gc.disable()
    if needed == "no":
        sys.modules["bitsandbytes"] = None
# Where it is needed, it asks for kernels that are not wanted here (docs/adapters.md).
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")
)
