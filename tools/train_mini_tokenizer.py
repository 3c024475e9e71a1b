"""Train the byte-level BPE of the `mini` model on the synthetic generator's stream (needs the `dev` extra).

    python tools/train_mini_tokenizer.py

Writes `harness/assets/mini.tiktoken`; the same bytes each time.
"""

import base64

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from harness.data.tasks.word_order import STREAM_SEED, generate
from harness.data.tokenizer import MINI_RANKS
from harness.model.named.shapes import SHAPES


def main() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=SHAPES["mini"].vocabulary - 1,  # the last id is end-of-text
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((message.text for message in generate(20_000, STREAM_SEED)), trainer)
    to_byte = _printable_to_byte()
    by_rank = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    lines = [
        f"{base64.b64encode(bytes(to_byte[character] for character in token)).decode()} {rank}\n"
        for token, rank in by_rank
    ]
    MINI_RANKS.write_text("".join(lines))
    print(f"{MINI_RANKS}: {len(lines)} ranks")


def _printable_to_byte() -> dict[str, int]:
    """The inverse of GPT-2's byte alphabet: printable Latin-1 bytes stand for themselves, the rest from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


if __name__ == "__main__":
    main()
