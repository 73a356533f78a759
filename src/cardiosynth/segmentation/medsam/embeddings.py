"""Embeddings of slices kept on disk: a frozen encoder, by far the larger part of the work, looks at each slice once."""

import hashlib
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cardiosynth.core.store import fingerprint, load_tensors, save_tensors, whole_file
from cardiosynth.segmentation.medsam.network import ENCODER, MedsamNetwork, image_embeddings
from cardiosynth.training.settings import Precision, uses_bfloat16


class EmbeddingCache:
    """A folder with one file per slice, named by what decides its contents; it may serve several runs, and at a time.

    The name is a digest of the encoder's weights, the precision, and the picture that the encoder is given, in which
    the image, its window, the slice and the square's size meet. So nothing in it is ever out of date.

    What was computed in float32 is kept so: 256 x 64 x 64 numbers for ViT-B, 4 MiB a slice. What was computed in
    bfloat16 is kept as float16, 2 MiB, which rounds eight times finer than the decoder's own arithmetic there. A
    hundred volumes of 100 slices that show a target are 42 or 21 GB.

    Args:
        folder: where.
        network: from `build_medsam`; its encoder must not change any more.
        device: where embeddings are computed.
        precision: of that.
    """

    def __init__(self, folder: Path, network: nn.Module, device: torch.device, precision: Precision):
        self.folder, self._network, self._device = folder, network.to(device), device
        self._bfloat16 = uses_bfloat16(precision, device)
        self._encoder = _digest(network.get_submodule(ENCODER).state_dict())

    @property
    def dtype(self) -> torch.dtype:
        """In which embeddings are kept."""
        return torch.float16 if self._bfloat16 else torch.float32

    def size_gb(self, num_slices: int, size: MedsamNetwork) -> float:
        """Return the room that so many slices take on disk, in 10^9 bytes."""
        tokens = (size.image_size // size.patch_size) ** 2
        return num_slices * size.embedding_channels * tokens * self.dtype.itemsize / 1e9

    def file(self, picture: Float[Tensor, "1 s s"]) -> Path:
        """Return where the embedding of a picture in model units lies, or would lie."""
        key = {"encoder": self._encoder, "bfloat16": self._bfloat16, "picture": _digest({"picture": picture})}
        name = fingerprint(key)
        return self.folder / name[:2] / f"{name}.safetensors"

    def keep(self, picture: Float[Tensor, "1 s s"]) -> Path:
        """Return the file of a picture's embedding, computed where it is not there.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        file = self.file(picture)
        if not file.exists():
            with whole_file(file) as partial:
                save_tensors({"embedding": self.compute(picture).to(self.dtype)}, partial)
        return file

    @torch.no_grad()
    def compute(self, picture: Float[Tensor, "1 s s"]) -> Float[Tensor, "c t t"]:
        """Return the embedding of one picture, float32."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            return image_embeddings(self._network, picture[None].to(self._device))[0].float().cpu()


def read_embedding(file: Path) -> Float[Tensor, "c t t"]:
    """Return what `EmbeddingCache.keep` wrote, float32.

    Raises:
        InputError: the file is damaged.
    """
    return load_tensors(file)["embedding"].float()


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
