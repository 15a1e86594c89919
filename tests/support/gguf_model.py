"""Writes small models of the llama architecture: real files for a real engine, without any download.

Their weights are chosen so that greedy decoding walks a chain of words: attention and feed-forward outputs are zero,
so the residual stream is the last token's embedding, and the output matrix leads from each word to the next.
"""

import fcntl
import hashlib
import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TEXT = "Hello from a real engine with tiny made weights : one two three four five six seven eight nine ten ."


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model to write."""

    text: str = TEXT
    """Its answer to everything. Words are distinct, or the chain would loop early."""
    loop: bool = False
    """Start over at the end instead of ending the answer."""
    width: int = 256
    layers: int = 2
    context: int = 2048

    @property
    def words(self) -> list[str]:
        """The words in order."""
        return self.text.split()


TINY = ModelSpec()
"""Answers TEXT, ends, and is done in milliseconds."""
SLOW = ModelSpec(loop=True, width=768, layers=8, context=8192)
"""Some 100 tokens a second on one core, and goes on until its context is full: to be stopped midway."""


def model_file(spec: ModelSpec = TINY) -> Path:
    """Return the model's file, written on first use and kept in the machine's folder for temporary files."""
    name = hashlib.sha256(repr(spec).encode() + Path(__file__).read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / "c2l-test-models"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.gguf"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may want it at once
        if not path.exists():
            partial = path.with_suffix(".partial")
            _write(spec, partial)
            partial.rename(path)
    return path


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    tokens: list[str]
    kinds: list[int]
    scores: list[float]
    first_word: int


def _vocabulary(words: list[str]) -> _Vocabulary:
    import gguf

    kind = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]
    kinds = [int(kind.UNKNOWN)] + [int(kind.CONTROL)] * 5
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    kinds += [int(kind.BYTE)] * 256
    first_word = len(tokens)
    plain = ["\N{LOWER ONE EIGHTH BLOCK}" + word for word in words]  # how SentencePiece writes a space
    plain += ["\N{LOWER ONE EIGHTH BLOCK}"] + [chr(code) for code in range(33, 127)]
    tokens += plain
    kinds += [int(kind.NORMAL)] * len(plain)
    scores = [0.0] * first_word + [-float(i) for i in range(len(plain))]
    return _Vocabulary(tokens, kinds, scores, first_word)


def _chain(spec: ModelSpec, vocabulary: _Vocabulary, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return the embeddings and the output matrix."""
    size = len(vocabulary.tokens)
    embeddings = rng.standard_normal((size, spec.width)).astype(np.float32)
    output = np.zeros((size, spec.width), np.float32)
    chain = [4] + [vocabulary.first_word + i for i in range(len(spec.words))]  # 4: <|assistant|>
    following = dict(itertools.pairwise(chain))
    following[chain[-1]] = chain[1] if spec.loop else 2  # 2: </s>
    shared = rng.standard_normal(spec.width).astype(np.float32)
    for token in range(size):
        if token not in following:  # every other token leads to the chain's first word
            embeddings[token] = shared + 0.05 * embeddings[token]
    output[chain[1]] += shared / np.linalg.norm(shared) * 1.5
    for token, after in following.items():
        output[after] += embeddings[token] / np.linalg.norm(embeddings[token]) * 1.5
    return embeddings, output


def _write(spec: ModelSpec, path: Path) -> None:
    import gguf

    words = spec.words
    if len(set(words)) != len(words):
        raise ValueError("expected distinct words: a chain that meets a word twice never ends")
    vocabulary = _vocabulary(words)
    rng = np.random.default_rng(1)
    heads, hidden = 4, spec.width * 2
    writer: Any = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(spec.context)
    writer.add_embedding_length(spec.width)
    writer.add_block_count(spec.layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(spec.width // heads)
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_tokenizer(writer, vocabulary)
    embeddings, output = _chain(spec, vocabulary, rng)
    writer.add_tensor("token_embd.weight", embeddings)
    writer.add_tensor("output_norm.weight", np.ones(spec.width, np.float32))
    writer.add_tensor("output.weight", output)
    for layer in range(spec.layers):
        _add_layer(writer, f"blk.{layer}.", spec.width, hidden, rng)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, vocabulary: _Vocabulary) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_chat_template(
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )


def _add_layer(writer: Any, prefix: str, width: int, hidden: int, rng: np.random.Generator) -> None:
    def weights(*shape: int) -> Any:
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    writer.add_tensor(prefix + "attn_norm.weight", np.ones(width, np.float32))
    writer.add_tensor(prefix + "ffn_norm.weight", np.ones(width, np.float32))
    for name in ("attn_q", "attn_k", "attn_v"):
        writer.add_tensor(prefix + name + ".weight", weights(width, width))
    writer.add_tensor(prefix + "attn_output.weight", np.zeros((width, width), np.float32))
    writer.add_tensor(prefix + "ffn_gate.weight", weights(hidden, width))
    writer.add_tensor(prefix + "ffn_up.weight", weights(hidden, width))
    writer.add_tensor(prefix + "ffn_down.weight", np.zeros((width, hidden), np.float32))
