"""What did SFT, DPO and GRPO each do to this vision-language model?"""

import logging
import os
import sys

# PEFT imports bitsandbytes wherever it is installed, which takes a sixth of a short job's time: where no job of the
# study needs it (environment.expose), it is as if it were not there. This stands before all imports.
if os.environ.get("MEMEDYNAMICS_BITSANDBYTES") == "no":
    sys.modules["bitsandbytes"] = None
# Where it is needed, it asks for kernels that are not wanted here (docs/adapters.md).
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")
)
