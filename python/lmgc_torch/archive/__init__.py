"""Archives: files of compressed tensors with an index, safe to read and quick to look into.

    save_file({"weight": weight}, "model.lmgc", metadata={"step": "7"})
    tensors = load_file("model.lmgc")
    with safe_open("model.lmgc", framework="pt") as f:
        weight = f.get_tensor("weight")

    save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "checkpoint.lmgc")
    checkpoint = load("checkpoint.lmgc")

docs/archive.md describes the bytes.
"""

from lmgc_torch.archive.named import load_file, safe_open, save_file
from lmgc_torch.archive.nested import load, save
from lmgc_torch.archive.reader import ArchiveReader
from lmgc_torch.archive.writer import ArchiveWriter

__all__ = ["save_file", "load_file", "safe_open", "save", "load"]
__all__ += ["ArchiveReader", "ArchiveWriter"]
