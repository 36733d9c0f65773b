"""SQL functions, one a file, applied by migrations."""

from pathlib import Path


def source(name: str) -> str:
    """The SQL of one function, as ``schema/functions/<name>.sql`` has it."""
    return (Path(__file__).parent / f"{name}.sql").read_text(encoding="utf-8")
