"""The chat template: ChatML."""

from __future__ import annotations

from collections.abc import Sequence

from keylm.common.documents import Message

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML, without slices, macros or tests: the engines of llama.cpp, LM Studio and Ollama are small."""


def render(messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
    """The conversation as the template shows it, for people and for tests; training never goes through this text."""
    text = "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)
    return text + "<|im_start|>assistant\n" if add_generation_prompt else text
