"""Files that are there whole or not at all."""

import secrets
from pathlib import Path


def written(path: Path, content: bytes) -> None:
    """Put the content where it belongs at once; whatever was there stays until then. Raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
