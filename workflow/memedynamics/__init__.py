"""What did SFT, DPO and GRPO each do to this vision-language model?"""

import logging

# PEFT imports bitsandbytes in every job, which then asks for kernels that are not wanted here (docs/adapters.md): while
# it is imported, so that this stands before all imports.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")
)
