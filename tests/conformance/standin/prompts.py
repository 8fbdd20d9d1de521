"""The system messages and chat templates of InternVL's repositories."""

INTERNVL = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的"  # noqa: RUF001
    "多模态大语言模型。"
)
QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
PLAIN = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""InternVL3.5's and those of ``-HF`` repositories: no system message of its own."""


def template_of(name: str) -> str:
    """The chat template in the repository ``name``.

    InternVL 2.5's and 3's repositories insert InternVL's system message where there is none, 3.5's
    and ``-HF`` ones insert nothing: LMDeploy's ``tests/test_lmdeploy/test_vl`` renders each of them
    (``test_nonhf_chat_template.py``, commit 0674241). Revisions of 2025 inserted Qwen's (OpenGVLab/
    InternVL issue 1094); a name that ends in ``-first`` stands for these.
    """
    if "InternVL3_5" in name or name.lower().endswith("-hf"):
        return PLAIN
    system = QWEN if name.endswith("-first") else INTERNVL
    return (
        "{% if messages[0]['role'] != 'system' %}"
        f"{{{{ '<|im_start|>system\n{system}<|im_end|>\n' }}}}"
        "{% endif %}"
    ) + PLAIN
