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
"""Without slices, macros and tests, which the small template engines of llama.cpp, LM Studio and Ollama may lack."""


def render(messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
    """Render a conversation as the template does, for display and tests.

    Training, chat and the server never encode this text: in it, a control string that a user wrote could not be told
    from a control token. They use `keylm.tokenizer.messages`.
    """
    text = "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)
    return text + "<|im_start|>assistant\n" if add_generation_prompt else text
