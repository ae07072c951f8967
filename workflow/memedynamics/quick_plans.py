"""What makes large plans slow in Snakemake 9.27, done once instead of again and again (benchmarks/quick_plans.py).

A fifth of a large study's plan went into three things: what parameters the functions of a rule take was asked a dozen
times a job; a job's command was put together three times to print it; whether a file has a flag, which is asked
hundreds of times a job, went through an abstract class.
"""

import sys
from functools import cache

from snakemake import common, io, rules
from snakemake.jobs import Job

from memedynamics.mending import replace

FLAGGED = (io.AnnotatedString, io._IOFile)


def use() -> None:
    """Let this Snakemake plan like that."""
    if hasattr(common.get_function_params, "cache_info"):
        return
    parameters_of = cache(common.get_function_params)
    for module in (common, rules):
        replace(module, "get_function_params", parameters_of)
    _print_commands_once()
    _ask_files_for_flags()


def _print_commands_once() -> None:
    put_together, print_job = Job.shellcmd.fget, Job.log_info
    printed: list[str | None] = []  # of the job that is being printed

    def command(job: Job) -> str | None:
        return printed[0] if printed else put_together(job)

    def log_info(job: Job, *given: object, **named: object) -> None:
        printed.append(put_together(job))
        try:
            print_job(job, *given, **named)
        finally:
            printed.clear()

    replace(Job, "shellcmd", property(command))
    replace(Job, "log_info", log_info)


def _ask_files_for_flags() -> None:
    ask = io.is_flagged

    def is_flagged(value: object, flag: str) -> bool:
        if isinstance(value, FLAGGED):
            return bool(value.flags.get(flag))
        return type(value) is not str and ask(value, flag)

    replace(io, "is_flagged", is_flagged)
    for name, module in list(sys.modules.items()):
        if name.startswith("snakemake") and getattr(module, "is_flagged", None) is ask:
            replace(module, "is_flagged", is_flagged)
