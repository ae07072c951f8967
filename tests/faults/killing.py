"""A running study killed again and again at drawn moments, run again each time, and watched for work done twice."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil

from smoke_study import SMOKE

ROOT = "results/smoke"
COMMAND = ["snakemake", "--cores", "2", "--rerun-incomplete", "--configfile", SMOKE]
LOOKED_AT = ("attention", "gradients", "sharpe", "spectrum")
REDUCED = (*LOOKED_AT, "accuracy", "kl", "likelihood", "rewards", "entropy", "summary")
STAGES = {
    "data": ["prepare_dataset"],
    "base model": ["base_model"],
    "sampling": ["sample_base", "gather_samples"],
    "preferences and probes": ["build_preferences", "greedy_base", "build_probes"],
    "preflight": ["preflight"],
    "sft": ["train_sft"],
    "dpo": ["train_dpo"],
    "grpo": ["train_grpo"],
    "own samples": ["sample_policy"],
    "scoring": ["score"],
    "extraction": ["base_svd", *(f"extract_{name}" for name in LOOKED_AT)],
    "analyses": list(REDUCED),
    "figures": [f"figure_{name}" for name in REDUCED],
    "report": ["thumbnails", "report_index", "report_memes"],
}
STAGE = {rule: stage for stage, rules in STAGES.items() for rule in rules}
# How many things a job has put on disk as it went when it is killed, for stages where it does. A training has four
# checkpoints, and is killed twice.
AFTER = {
    **dict.fromkeys(("base model", "sampling", "own samples", "scoring", "extraction"), (0, 1, 2, 3)),
    **dict.fromkeys(("sft", "dpo", "grpo"), (0, 1)),
}
QUICK = ("data", "analyses", "figures", "report")
# Who dies: Snakemake with all its jobs, one job, or Snakemake alone, a stage's last: its jobs go on to their end.
WAYS = ("all", "job", "snakemake")
POLL = 0.02  # seconds
BLOCK = re.compile(r"^ *(?:local)?rule \w+:\n((?: +\w+: .*\n)+)", re.MULTILINE)


class Kill(NamedTuple):
    """One kill: who dies, and when: so many seconds after the job put so many things on disk (0: after its start)."""

    way: str
    after: int
    seconds: float


class Job(NamedTuple):
    """A job that runs: its rule, its private folder, its process."""

    rule: str
    work: str
    process: psutil.Process


def begun(said: str) -> dict[str, str]:
    """By number, the first output of each job that Snakemake's output says was started; `all` has none."""
    blocks = [dict(re.findall(r"^ +(\w+): (.*)$", block, re.MULTILINE)) for block in BLOCK.findall(said)]
    return {told["jobid"]: told["output"].partition(",")[0] for told in blocks if "output" in told}


def recorded(said: str) -> set[str]:
    """The numbers of the jobs that Snakemake's output says are finished."""
    return set(re.findall(r"^Finished jobid: (\d+)", said, re.MULTILINE))


def drawn(counts: dict[str, int], seed: int, after: dict[str, tuple[int, ...]] = AFTER) -> dict[str, list[Kill]]:
    """As many kills of each stage as `counts` says, at seeded moments; `after`: what a job may have put on disk."""
    chance = random.Random(seed)
    return {
        stage: [_one(stage, WAYS[:2] if more else WAYS, after.get(stage, (0,)), chance) for more in range(n)[::-1]]
        for stage, n in counts.items()
    }


def _one(stage: str, ways: tuple[str, ...], things: tuple[int, ...], chance: random.Random) -> Kill:
    way, after = chance.choice(ways), chance.choice(things)
    return Kill(way, after, chance.uniform(0, 0.3) if after else chance.uniform(0.1, 1.5 if stage in QUICK else 5))


def running(process: psutil.Process) -> list[Job]:
    """The jobs below a Snakemake, each once however many processes it has."""
    found = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in process.children(recursive=True):
            words = child.cmdline()
            if len(words) > 2 and words[1].startswith("workflow/scripts/"):
                told = json.loads(words[2])
                found.setdefault(told["work"], Job(told["rule"], told["work"], child))
    return list(found.values())


class Watch(threading.Thread):
    """Sees every batch and checkpoint that is put on disk, and which of them are put there again."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.work, self.versions, self.over = folder / ROOT / ".work", {}, threading.Event()

    def run(self) -> None:
        while not self.over.wait(POLL):
            self.look()

    def look(self) -> None:
        """Remember what lies there: a file written again is another file, or of another time."""
        for pattern in ("*.parquet", "complete", "state.pt"):
            with contextlib.suppress(FileNotFoundError):  # a job that ends takes its folder away
                for file in self.work.rglob(pattern):
                    found, name = file.stat(), file.relative_to(self.work)
                    self.versions.setdefault(name, set()).add((found.st_ino, found.st_mtime_ns))

    def since(self, job: Job) -> int:
        """How many things the process of `job` has put on disk."""
        start, own = job.process.create_time() * 1e9, job.work.partition(".work/")[2]
        known = [versions for file, versions in list(self.versions.items()) if _job(file) == own]
        return sum(time > start for versions in known for _, time in list(versions))

    def repeated(self) -> Counter:
        """By job, how many batches (by name) or checkpoints were put there more than once."""
        twice = {file for file, versions in self.versions.items() if len(versions) > 1 and file.name != "state.pt"}
        return Counter(
            f"{ROOT}/.work/{job}" for job, _ in {(_job(file), file.stem if file.suffix else file) for file in twice}
        )


def _job(file: Path) -> str:
    """The job whose private folder holds `file`: what stands before the digest that keys it."""
    parts = file.parts
    key = next(i for i, part in enumerate(parts) if re.fullmatch("[0-9a-f]{16}", part))
    return "/".join(parts[:key])


class Study:
    """A study in `folder`, of which `targets` are made, killed as `kills` say."""

    def __init__(self, folder: Path, targets: list[str], kills: dict[str, list[Kill]]) -> None:
        self.folder, self.targets = folder, targets
        self.left = {stage: list(some) for stage, some in kills.items()}
        self.hits, self.hit_jobs, self.ways = Counter(), Counter(), Counter()
        self.strays: list[Job] = []  # that outlived their Snakemake
        self.calls: list[str] = []
        self.watch = Watch(folder)

    def finish(self) -> None:
        """Run, be killed, run again, until all is made."""
        self.watch.start()
        while not self._call():
            assert len(self.calls) < 100, self.calls[-1][-4000:]
        self.watch.over.set()
        self.watch.join()
        psutil.wait_procs([job.process for job in self.strays], 120)

    def _call(self) -> bool:
        """One call of Snakemake; whether it ended well, which none that was killed does."""
        output = self.folder / f"call{len(self.calls)}.txt"
        with output.open("w") as said:
            called = subprocess.Popen(
                [*COMMAND[:1], *self.targets, *COMMAND[1:]],
                cwd=self.folder,
                stdout=said,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        killed = self._kill_once(psutil.Process(called.pid), called)
        status = called.wait()
        self.calls.append(output.read_text())
        assert killed or status == 0, self.calls[-1][-8000:]
        return not killed

    def _kill_once(self, snakemake: psutil.Process, called: subprocess.Popen) -> bool:
        while called.poll() is None:
            for job in running(snakemake):
                if self.left.get(STAGE.get(job.rule)) and self._kill(snakemake, called, job):
                    return True
            time.sleep(POLL)
        return False

    def _kill(self, snakemake: psutil.Process, called: subprocess.Popen, job: Job) -> bool:
        """Carry out the next kill of the job's stage; False where the job ends before its moment comes."""
        kill = self.left[STAGE[job.rule]][0]
        self._await(job, kill)
        there = running(snakemake)
        if job.work not in [other.work for other in there] or called.poll() is not None:
            return False
        self.left[STAGE[job.rule]].pop(0)
        if any(self.left.get(STAGE.get(other.rule)) for other in there if other.work != job.work):
            kill = kill._replace(way="all")  # the others would go on, and end without their own kills
        hit = [job] if kill.way == "job" else there
        if kill.way == "all":
            os.killpg(called.pid, signal.SIGKILL)
        else:
            (snakemake if kill.way == "snakemake" else job.process).send_signal(signal.SIGKILL)
        self._note(hit, kill)
        return True

    def _await(self, job: Job, kill: Kill) -> None:
        began = job.process.create_time()
        with contextlib.suppress(psutil.NoSuchProcess):
            while job.process.is_running() and job.process.status() != psutil.STATUS_ZOMBIE:
                if kill.after and self.watch.since(job) >= kill.after:
                    time.sleep(kill.seconds)
                    return
                if not kill.after and time.time() >= began + kill.seconds:
                    return
                time.sleep(POLL)

    def _note(self, hit: list[Job], kill: Kill) -> None:
        psutil.wait_procs([job.process for job in hit], 0 if kill.way == "snakemake" else 10)
        self.watch.look()
        self.hits.update(STAGE.get(job.rule) for job in hit)
        self.ways[kill.way] += 1
        self.hit_jobs.update(job.work for job in hit)
        self.strays += hit if kill.way == "snakemake" else []

    def started_again(self) -> list[str]:
        """Jobs, by their first output, that started in a call after the one that said they were finished."""
        done, again = set(), []
        for said in self.calls:
            jobs = begun(said)
            again += sorted(done & set(jobs.values()))
            done |= {jobs[number] for number in recorded(said) & jobs.keys()}
        return again
