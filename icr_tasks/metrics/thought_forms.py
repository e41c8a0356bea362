"""How models mark thoughts, channels and the end of a turn: one table, read by `visible.py`.

Sources: the chat templates of the families named, the reasoning parsers of vLLM 0.32 and its main branch of late 2026
(vllm/reasoning, vllm/parser) and SGLang (srt/parser/reasoning_parser.py), and model cards. A form is three patterns: what
opens a thought, what closes it, and what opens the answer (which ends a thought too). docs/metrics.md shows
the table by family. No pattern may look at more than a bounded stretch, except at the beginning of the text.
"""

from __future__ import annotations

from typing import NamedTuple


class Form(NamedTuple):
    """One way to mark thoughts. Patterns ignore case; an empty one never matches.

    `answers` opens the answer: all before it was a thought. `after` does so only inside a thought, because
    elsewhere it is an ordinary sentence. `alone`: a closing mark without an opening one says that all before
    it was a thought (the chat template had opened it). `example` is an output with {t} for the thought and
    {a} for the answer, `models` who writes it.
    """

    name: str
    opens: str
    closes: str = ""
    answers: str = ""
    after: str = ""
    alone: bool = True
    example: str = ""
    models: str = ""


_NAME = (
    r"(?:(?:ant)?think(?:ing)?(?:_process)?|thoughts?(?:_process)?|reason(?:ing)?(?:_(?:content|process|trace))?"
    r"|(?:inner|internal)_(?:monologue|thoughts?)|chain_of_thoughts?|cot|rationale|reflection|analysis|scratch_?pad"
    r"|working_out|judge)"
)
_L, _R = r"(?:<|&lt;)", r"(?:>|&gt;)"
# <think>, <seed:think>, <mm:think>, <ifm|think_fast>, <longcat_think>, <think:6124c78e>, <think budget="8">
_TAG = rf"(?:[a-z0-9]+[:|_])?{_NAME}(?:_fast(?:er)?)?(?::[^<>\s]{{1,40}})?"

FORMS: tuple[Form, ...] = (
    Form(  # before "tag", which takes any word before the name
        "start-end",
        rf"<start_(?:of_)?{_NAME}>",
        rf"<end_(?:of_)?{_NAME}>",
        example="<start_working_out>{t}<end_working_out><SOLUTION>{a}</SOLUTION>",
        models="models trained with Unsloth's GRPO recipes",
    ),
    Form(
        "tag",
        rf"{_L}{_TAG}(?:\s[^<>]{{0,80}})?{_R}",
        rf"{_L}/{_TAG}\s*{_R}",
        example="<think>\n{t}\n</think>\n\n{a}",
        models="Qwen3, QwQ, DeepSeek, GLM, Kimi-K2, MiniMax, Nemotron, SmolLM3, OLMo-3, Phi-4, Granite "
        "3.3, Hunyuan, "
        "Ernie, EXAONE, Seed-OSS, K2 Horizon, LongCat, Reka, Marco-o1, Reflection, KAT, Step3, MiMo, Ling 3, Intern-S1, "
        "GigaChat 3.5, TeleChat 4, MiniCPM-V, RWKV-7, Laguna, IQuest, Nanbeige, dots, Kolibri, BerryLM",
    ),
    Form(
        "bracket",
        rf"(?-i:\[{_NAME.upper()}\])",
        rf"(?-i:\[/{_NAME.upper()}\])",
        example="[THINK]{t}[/THINK]{a}",
        models="Magistral, Ministral 3, Mistral Small 4",
    ),
    Form(
        "triangle",
        r"◁think▷",
        r"◁/think▷",
        example="◁think▷{t}◁/think▷{a}",
        models="Kimi-VL Thinking, Kimi k1.5",
    ),
    Form(
        "pipe",
        rf"<[|｜](?:plamo:)?(?:(?:begin|start)[_▁](?:of[_▁])?)?{_NAME}(?:[_:](?:start|begin))?(?::plamo)?[|｜]>",
        rf"<[|｜](?:plamo:)?(?:/|(?:end|close)[_▁](?:of[_▁])?){_NAME}(?::plamo)?[|｜]>|<\|{_NAME}[_:]end\|>",
        r"<\|(?:begin_of_solution|start_response|start_text)\|>",
        example="<|START_THINKING|>{t}<|END_THINKING|><|START_RESPONSE|>{a}<|END_RESPONSE|>",
        models="Command A Reasoning, OpenThinker, Sky-T1, Bespoke-Stratos, PLaMo 3, Solar Open 2",
    ),
    Form(
        "unused",
        r"\[unused16\]",
        r"\[unused17\]",
        example="[unused16]{t}[unused17]{a}[unused10]",
        models="openPangu",
    ),
    Form(
        "inner",
        r"<\|inner_prefix\|>",
        r"<\|inner_suffix\|>",
        example="<|inner_prefix|>{t}<|inner_suffix|>{a}",
        models="Apertus",
    ),
    Form(
        "harmony",
        r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)[^<\n]{0,80}(?:<\|constrain\|>[a-z]*\s*)?"
        r"<\|message\|>|\A\s*(?:analysis|commentary)(?=\w)|\A\s*analysis(?=(?s:.*?)assistant\s?final)",
        r"<\|end\|>|<\|call\|>",
        r"(?:<\|start\|>assistant)?<\|channel\|>final[^<\n]{0,80}<\|message\|>",
        r"assistant\s?final",
        alone=False,
        example="<|channel|>analysis<|message|>{t}<|end|><|start|>assistant<|channel|>final<|message|>{a}<|return|>",
        models="gpt-oss",
    ),
    Form(
        "kimi-k3",
        r"<\|open\|>think<\|sep\|>|\A\s*think(?=(?-i:[A-Z])|(?s:.*?)thinkresponse)",
        r"<\|close\|>think<\|sep\|>",
        r"<\|open\|>response<\|sep\|>",
        r"thinkresponse",
        example="<|open|>think<|sep|>{t}<|close|>think<|sep|><|open|>response<|sep|>{a}<|close|>response<|sep|>",
        models="Kimi-K3",
    ),
    Form(
        "channel",
        r"<\|channel>[ \t]*[a-z]*[ \t]*\n?|<unused94>(?:thought\n)?",
        r"<channel\|>|<unused95>",
        example="<|channel>thought\n{t}<channel|>{a}<turn|>",
        models="Gemma 4, MedGemma",
    ),
    Form(
        "block",
        r"(?:<\|message_model\|>)?<\|content_thinking\|>",
        r"<\|end_message\|>|<\|content_model_end_sampling\|>",
        r"(?:<\|message_model\|>)?<\|content_text\|>",
        alone=False,
        example="<|message_model|><|content_thinking|>{t}<|end_message|><|message_model|><|content_text|>{a}"
        "<|end_message|>",
        models="Inkling",
    ),
    Form(
        "to-self",
        r"(?:<\|start\|>assistant)?\s?to=self<\|message\|>|\A\s*to=self(?=\S)",
        r"<\|eom\|>",
        r"(?:<\|start\|>assistant)?\s?to=user<\|message\|>",
        r"(?:assistant)?\s?to=user",
        alone=False,
        example=" to=self<|message|>{t}<|eom|><|start|>assistant to=user<|message|>{a}<|eot|>",
        models="Muse Glimmer",
    ),
    Form(
        "turn",
        r"<\|im_start\|>(?:assistant/)?think\b|\A\s*/think\n|\A\s*think\n",
        r"",
        r"<\|im_start\|>answer\n?",
        r"<\|im_end\|>\s?<\|im_start\|>(?:answer|assistant(?!/think))\n?|(?<=\n)answer\n",
        example="<|im_start|>think\n{t}\n<|im_start|>answer\n{a}<|im_end|>",
        models="s1, HyperCLOVA X SEED Think",
    ),
    Form(
        "begin-think",
        r"<\|begin\|>assistant<\|think\|>",
        r"<\|end\|>",
        r"<\|begin\|>assistant(?:<\|content\|>)?|<\|content\|>",
        alone=False,
        example="<|think|>{t}<|end|><|begin|>assistant<|content|>{a}<|end|>",
        models="Solar Open",
    ),
    Form(
        "granite",
        r"Here(?:'s|’s| is) my thought process:",
        after=r"Here(?:'s|’s| is) my response:",
        example="Here is my thought process: {t}\n\nHere is my response: {a}",
        models="Granite 3.2",
    ),
    Form(
        "apriel",
        r"\A\s*Here are my reasoning steps:",
        answers=r"\[BEGIN FINAL RESPONSE\]",
        example="Here are my reasoning steps:\n{t}\n[BEGIN FINAL RESPONSE]\n{a}\n[END FINAL RESPONSE]",
        models="Apriel",
    ),
    Form(
        "heading",
        r"\A\s*#{1,3} (?:Thinking|Thought Process)\s*\n"
        r"|\A\s*\*\*(?:Thinking|Thought Process):?\*\*:?\s*\n",
        after=r"^(?:#{1,3} |\*\*)(?:Final Response|Final Answer|Response|Answer)(?::?\*\*:?)?[ \t]*\n",
        example="## Thinking\n\n{t}\n\n## Final Response\n\n{a}",
        models="HuatuoGPT-o1",
    ),
    Form(
        "details",
        r"<details type=\"reasoning\"[^<>]{0,80}>",
        r"</details>",
        alone=False,
        example='<details type="reasoning" done="true">\n{t}\n</details>\n{a}',
        models="text copied from Open WebUI",
    ),
    Form(
        "fence",
        r"^```(?:think(?:ing)?|thoughts?|reasoning)[ \t]*\n",
        r"^```[ \t]*$",
        alone=False,
        example="```thinking\n{t}\n```\n{a}",
        models="models told to think in a fence",
    ),
)

# Ends of turns and wrappers around answers: no part of the text, wherever they stand.
CONTROL = (
    r"<\|(?:open|close)\|>(?:response|message)<\|sep\|>|<\|[A-Za-z0-9_:/.-]{1,40}\|>|<｜[^｜<>]{1,40}｜>"
    r"|\[\|endofturn\|\]|\[e~\[|<(?:start|end)_of_turn>|<\|turn>|<turn\|>|<eos>|<bos>|<seed:(?:eos|bos)>|\[(?:EOS|EOT)\]"
    r"|\[unused(?:9|10)\]|<reserved_\d{1,3}>|\[(?:BEGIN|END) FINAL RESPONSE\]"
    r"|<think_(?:on|off)>|<longcat_s>|</?longcat_(?:assistant|user)>"
)
# The model goes on with somebody else's turn: cut where something was said before. And the header of its own
# turn.
_HEADER = r"(?:<\|im_start\|>|<start_of_turn>|<\|turn>|<\|start_header_id\|>|<\|start\|>)\s?"
NEXT_TURN = _HEADER + r"(?:user|human|system)\b|<｜User｜>|<\|user\|>|\[INST\]"
OWN_TURN = _HEADER + r"(?:assistant|model)(?:<\|end_header_id\|>)?\s?|<｜Assistant｜>|<\|assistant\|>"
# Where an event can begin: all that a long text is searched for.
FIRST = r"<(?=[|｜/a-zA-Z])|&lt;|◁|\[/?[TRSAJBICWu]|^```|^#|^\*\*|Here(?=['’ ])|assistant|thinkresponse|to=|(?<=\n)answer"
# Tags that some families put around the whole answer after a thought.
WRAPPERS = ("answer", "response", "output", "final_answer", "final", "conclusion", "solution")
