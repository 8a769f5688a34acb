"""What the communication of gradients has cost so far."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class CompressionStats:
    """Sums over all steps of this rank.

    Attributes:
        steps: Backward passes that communicated.
        raw_bytes: What this rank would have sent without compression: an all-reduce of n bytes
            among w ranks sends 2 (w - 1) / w n of each.
        sent_bytes: What it has sent: frames, or elements where a bucket was not compressed. Headers
            of the transport are not counted.
        codec_seconds: Time of the codec thread. It runs beside the backward pass and the link.
        wire_seconds: Time of exchanges and plain all-reduces, those that overlap added up; waiting
            for ranks that come later is part of it.
        methods: By bucket, the method of the last step; "plain" is an all-reduce of the backend.
    """

    steps: int = 0
    raw_bytes: int = 0
    sent_bytes: int = 0
    codec_seconds: float = 0.0
    wire_seconds: float = 0.0
    methods: dict[int, str] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Sent / raw bytes, in %; 100 when nothing was sent."""
        return 100 * self.sent_bytes / self.raw_bytes if self.raw_bytes else 100.0

    def __str__(self) -> str:
        methods = ", ".join(f"{index} {name}" for index, name in sorted(self.methods.items()))
        return (
            f"{self.steps} steps: {self.raw_bytes / 1e6:.1f} MB of gradients sent as "
            f"{self.sent_bytes / 1e6:.1f} MB ({self.ratio:.1f} %), codec {self.codec_seconds:.1f} "
            f"s, wire {self.wire_seconds:.1f} s; buckets: {methods or 'none'}"
        )
