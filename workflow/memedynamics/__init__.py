"""What did SFT, DPO and GRPO each do to this vision-language model?"""
