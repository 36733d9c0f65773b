"""Reading mail: the reader over bytes beside the standard parser (compat32), same decoded output.

Both sides turn the same raw bytes into the same `Mail`: all headers decoded, addresses, date, text, HTML,
attachments with SHA-256. Equality is asserted on the whole corpus before anything is timed. Runs alternate;
figures are medians. The last line is JSON; ``growth`` has, per size class, the mean size in bytes, messages a
second and the ratio.

    python bench/read.py [--count 1500] [--seed 7] [--runs 5]
"""

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]

from lab.corpus import generate  # noqa: E402 - found by the path set above
from tasks.wire.mime import Mail, read  # noqa: E402 - found by the path set above
from tests.unit.mime.judge import judge  # noqa: E402 - found by the path set above

CLASSES = (("small", 0, 8 * 1024), ("middle", 8 * 1024, 60 * 1024), ("large", 60 * 1024, sys.maxsize))


def main() -> int:
    """Assert equality, time both, print figures per size class and in total."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=1500)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--runs", type=int, default=5)
    chosen = options.parse_args()
    corpus = list(generate(chosen.count, chosen.seed))
    odd = sum(not is_trivial(raw) for raw in corpus)
    if odd * 5 < len(corpus):
        raise SystemExit(f"Only {odd} of {len(corpus)} messages are non-trivial MIME; a fifth is needed.")
    for index, raw in enumerate(corpus):
        if replace(read(raw), defects=()) != judge(raw):
            raise SystemExit(
                f"Message {index} of seed {chosen.seed} reads differently from the standard parser."
            )
    print(f"{len(corpus)} messages read alike by both; {odd} of them non-trivial MIME")
    rates, growth = {}, []
    for name, low, high in (*CLASSES, ("total", 0, sys.maxsize)):
        mails = [raw for raw in corpus if low <= len(raw) < high]
        if mails:
            rates[name] = measure(name, mails, chosen.runs)
            if name != "total":
                growth.append([sum(map(len, mails)) // len(mails), rates[name][0], rates[name][2]])
    ours, peer, ratio = rates["total"]
    setup = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "messages": len(corpus),
        "mean_bytes": sum(map(len, corpus)) // len(corpus),
        "non_trivial": odd,
        "seed": chosen.seed,
        "runs": chosen.runs,
        "peer": "email.message_from_bytes, policy compat32, every field of the row decoded",
    }
    result = {
        "name": "read",
        "ours": ours,
        "peer": peer,
        "ratio": ratio,
        "unit": "messages/s",
        "growth": growth,
        "setup": setup,
    }
    for name in ("small", "large"):
        result[f"ratio_{name}"] = rates[name][2] if name in rates else None
    print(json.dumps(result))
    return 0


def is_trivial(raw: bytes) -> bool:
    """One plain text in ASCII, nothing encoded."""
    head = raw.partition(b"\r\n\r\n")[0].lower()
    return b"multipart/" not in head and b"base64" not in head and b"quoted-printable" not in head


def measure(name: str, mails: list[bytes], runs: int) -> tuple[float, float, float]:
    """Time alternating runs; return our rate, the peer's, and the median of the runs' ratios."""
    ours, peer = [], []
    for _ in range(runs):
        ours.append(seconds(read, mails))
        peer.append(seconds(judge, mails))
    ratio = round(statistics.median(theirs / mine for mine, theirs in zip(ours, peer, strict=True)), 2)
    rates = [round(len(mails) / statistics.median(taken)) for taken in (ours, peer)]
    print(f"{name:6} {len(mails):6} messages  ours {rates[0]:6}/s  compat32 {rates[1]:6}/s  ratio {ratio}")
    return rates[0], rates[1], ratio


def seconds(reader: Callable[[bytes], Mail], mails: list[bytes]) -> float:
    """Processor time that reading every mail once takes; other processes share this machine."""
    gc.collect()
    start = time.process_time()
    for raw in mails:
        reader(raw)
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
