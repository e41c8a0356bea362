"""Loong, English financial reports: the paper's Table 7 and Loong's own template.

Loong's own code (src/utils/prompt.py at e05a1fd3) ends every document with an empty line and prints what stands after the last
hyphen of a file's name as its title ("j" of `2024-HARTE HANKS INC-j.txt`). The paper's prompt names the whole file.
"""

from __future__ import annotations

from ...context.prompts import Prompt

PROMPTS: dict[str, Prompt] = {
    "paper": Prompt(
        "paper",
        user="{context}\n\n{instruction}\n\n{question}.",
        system="You are an expert in answering questions about financial reports.",
        no_context="{instruction}\n\n{question}.",
        unit="《{title}》\n{text}\n",
        joiner="\n",
        cut="documents",
        source="arXiv 2601.18527, Table 7",
    ),
    "official": Prompt(
        "official",
        user="{context}\n\n{instruction}\n\n{question}",
        no_context="{instruction}\n\n{question}",
        unit="《{title}》\n{text}\n\n",
        joiner="",
        cut="documents",
        official_titles=True,
        source="MozerWang/Loong prompt_template",
    ),
}
