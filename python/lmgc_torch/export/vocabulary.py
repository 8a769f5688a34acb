"""The prior's small vocabulary, and where the checkpoint's large one has it.

A prior needs one token for each digit. Tokenizers write "12" as one token; the model is shown, and
asked for, the tokens of the single characters "1" and "2" instead.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

from lmgc_torch.export.checkpoint import CheckpointError

__all__ = ["SEPARATORS", "Vocabulary", "find_vocabulary"]

DIGITS = "0123456789abcdef"
BOS = "<bos>"
SEPARATORS = {"space": " ", "comma": ",", "comma_space": ", ", "semicolon": ";", "0x": "0x"}
"""Texts of the separators that have one, by the names that the option `separator` takes."""
BYTES = "iso-8859-1"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Which tokens a prior has.

    Attributes:
        tokens: Their texts: the sixteen digits, "<bos>", separators, and perhaps the other
            characters of iso-8859-1.
        ids: The checkpoint's ids of them.
        separators: The values of the option `separator` that the prior can be used with.
    """

    tokens: list[str]
    ids: list[int]
    separators: list[str]


def find_vocabulary(tokenizer: Any, config: Any) -> Vocabulary:
    """Looks the prior's tokens up in the checkpoint's vocabulary.

    Args:
        tokenizer: A transformers tokenizer; or a mapping of texts (of digits, separators, "<bos>",
            characters) to ids.
        config: The checkpoint's configuration.

    Returns:
        The vocabulary. Separators and bytes that are no single token are left out.

    Raises:
        CheckpointError: A digit is no token, or there is none for the beginning.
        TypeError: `tokenizer` is neither of the two.
    """
    spelling = _Spelling(tokenizer)
    found: dict[str, int] = {}
    for digit in DIGITS:
        token = spelling.find(digit)
        if token is None:
            raise CheckpointError(
                f"none of the tokenizer's {spelling.size} tokens is the single digit {digit!r}; a "
                f"prior needs one for each of {DIGITS}"
            )
        found[digit] = token
    found[BOS] = _beginning(tokenizer, config)

    separators = ["none"]
    for name, text in SEPARATORS.items():
        token = spelling.find(text)
        if token is not None:
            found[text] = token
            separators.append(name)
    characters = {character: spelling.find(character) for character in map(chr, range(256))}
    if None not in characters.values():
        found.update({text: token for text, token in characters.items() if token is not None})
        separators.append(BYTES)

    ids = list(found.values())
    if not all(0 <= token < config.vocab_size for token in ids):
        raise CheckpointError(
            f"the tokenizer has ids up to {max(ids)}, the model {config.vocab_size} tokens: they "
            "do not belong together"
        )
    if len({found[digit] for digit in DIGITS}) < len(DIGITS):
        raise CheckpointError("the tokenizer gives two digits the same id")
    return Vocabulary(list(found), ids, separators)


class _Spelling:
    """How a vocabulary writes texts.

    Byte-level vocabularies write each byte as a printable character of their own. Others write a
    space as U+2581 and may have tokens <0x00> to <0xFF> for bytes.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._alphabet: list[str] | None = None
        self._space = "\u2581"
        if isinstance(tokenizer, Mapping):
            self._vocab: Mapping[str, int] = tokenizer
            self._space = " "
            return
        if not hasattr(tokenizer, "get_vocab"):
            raise TypeError(
                "a tokenizer is one of transformers', or a mapping of texts to ids, not a "
                f"{type(tokenizer).__name__}"
            )
        self._vocab = tokenizer.get_vocab()
        alphabet = _byte_alphabet()
        if "<0x00>" not in self._vocab and all(letter in self._vocab for letter in alphabet):
            self._alphabet = alphabet

    @property
    def size(self) -> int:
        """Tokens in the vocabulary."""
        return len(self._vocab)

    def find(self, text: str) -> int | None:
        """Returns the id of the one token that stands for a text, None if it takes several.

        A character that is no token itself is told by the token of the byte with its code.
        """
        if self._alphabet is not None:
            spelled = "".join(self._alphabet[byte] for byte in text.encode())
            token = self._vocab.get(spelled)
            if token is None and len(text) == 1:
                token = self._vocab.get(self._alphabet[ord(text)])
            return token
        token = self._vocab.get(text.replace(" ", self._space))
        if token is None and len(text) == 1:
            token = self._vocab.get(f"<0x{ord(text):02X}>")
        return token


def _byte_alphabet() -> list[str]:
    """The characters that byte-level vocabularies write bytes as: themselves where they print."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = itertools.count(0x100)
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _beginning(tokenizer: Any, config: Any) -> int:
    """Returns the id that every window begins with."""
    candidates: list[Any] = [tokenizer.get(BOS)] if isinstance(tokenizer, Mapping) else []
    candidates += [
        getattr(source, name, None)
        for source in (tokenizer, config)
        for name in ("bos_token_id", "eos_token_id")
    ]
    for candidate in candidates:
        first = candidate[0] if isinstance(candidate, list | tuple) and candidate else candidate
        if isinstance(first, int):
            return first
    raise CheckpointError(
        "neither the tokenizer nor the configuration names a token that begins or ends a text "
        "(bos_token_id, eos_token_id); every window of a prior begins with one"
    )
