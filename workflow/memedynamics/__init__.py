"""What did SFT, DPO and GRPO each do to this vision-language model?"""

import logging

# PEFT imports bitsandbytes in every job, which then asks for kernels that this project does not take (docs/adapters.md).
# Before all imports, since this line is written during one.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")
)
