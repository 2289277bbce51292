"""A real model file of 470 kB with seeded random weights: llama.cpp loads it, tokenises, applies its template, samples.

What it says is nonsense that a grammar still holds to a schema, so load, chat, constraint, parsing and unload are all
exercised without a download. Tokens are bytes (one merge, because llama.cpp wants one), so a prompt of n bytes has about
n tokens, the worst a tokeniser can do. One large constant channel of the embedding acts as a bias per token: the model
likes lower-case letters, closing quotes and the end.
"""

from pathlib import Path

import gguf
import numpy as np

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_MERGE = ("Ġ", "t")
_END = SPECIALS.index("<|im_end|>")
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CHANNEL, _SPREAD = 8.0, 4.0


def _byte_symbols() -> list[str]:
    """GPT-2's printable stand-in for each byte."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(spare)) for byte in range(256)]


def _bias(n_tokens: int) -> np.ndarray:
    bias = np.full(n_tokens, -6.0)
    first = len(SPECIALS)
    bias[[first + byte for byte in range(32, 127)]] = -1.0
    bias[[first + byte for byte in b"abcdefghijklmnopqrstuvwxyz0123456789"]] = 1.0
    bias[[first + ord('"'), _END]] = 1.5
    return bias


def write_tiny_gguf(path: Path, seed: int = 0, dim: int = 64, layers: int = 2, heads: int = 4, ffn: int = 128) -> Path:
    """Write the model; the same seed gives the same bytes."""
    random = np.random.default_rng(seed)
    tokens = [*SPECIALS, *_byte_symbols(), "".join(_MERGE)]

    def matrix(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        return (random.standard_normal((rows, columns)) * scale / np.sqrt(columns)).astype(np.float32)

    embedding = matrix(len(tokens), dim, _SPREAD)
    embedding[:, 0] = _CHANNEL
    output = matrix(len(tokens), dim, _SPREAD)
    output[:, 0] = _bias(len(tokens)) * np.hypot(_CHANNEL, _SPREAD) / (_CHANNEL * np.sqrt(dim))
    ones = np.ones(dim, dtype=np.float32)
    tensors = {"token_embd.weight": embedding, "output_norm.weight": ones, "output.weight": output}
    for block in (f"blk.{i}." for i in range(layers)):
        tensors |= {f"{block}attn_norm.weight": ones, f"{block}ffn_norm.weight": ones}
        tensors |= {f"{block}{name}.weight": matrix(dim, dim) for name in ("attn_q", "attn_k", "attn_v")}
        tensors |= {f"{block}attn_output.weight": matrix(dim, dim, 0.3), f"{block}ffn_down.weight": matrix(dim, ffn, 0.3)}
        tensors |= {f"{block}{name}.weight": matrix(ffn, dim) for name in ("ffn_gate", "ffn_up")}

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny-random")
    writer.add_context_length(8192)
    writer.add_embedding_length(dim)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(dim // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in SPECIALS else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(_MERGE)])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(_END)
    writer.add_add_bos_token(False)
    writer.add_chat_template(_TEMPLATE)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
