"""The paper's five prompt formats for questions about passages (arXiv 2601.18527, Tables 8-9), and the
variants of its released code: `ao` answer only, `id` ids first, `idc` ids and contents, `idq` quotes and ids,
`judge` reasoning in steps.

HELMET-RAG and synth use them, training renders the same objects, and a plugin takes them as
`icr.prompts.HELMET`.
"""

from __future__ import annotations

from .base import Prompt

_SYSTEM = "You are an expert in question answering."
_AO_END = "Question: {question}\n\nWrite your concise and short answer in the following format:\n\nAnswer: <your answer>."
_AO = (
    "Use the given documents to write a concise and short answer to the question.\n\n{context}\n\n" + _AO_END
)
_AO_CODE = (
    "Use the given documents to write a concise and short answer to the question. Write your answer in the "
    "following "
    "format:\nAnswer: <your answer>\n\n{context}\n\n" + _AO_END
)
_STEPS = (
    "Documents: {context}\n\nInstruction: Given the set of documents above, answer the following question "
    "by following "
    "these steps:\n\n"
)
_ID = (
    _STEPS
    + "1. Identify the relevant documents. Each document is identified by a tag in the form [DOC i], where "
    "i is "
    "the index of the document in the context.\n"
    "   - If you find relevant documents, output their IDs exactly as shown, separated by commas. Example: "
    "[DOC i], "
    "[DOC j], [DOC k].\n"
    "   - If no documents are relevant, output only: [DOC -1].\n\n"
    "2. On a new line, provide your answer in the following format:\n"
    "   The answer is: <your answer here>.\n\nQuestion: {question}."
)
_IDQ = (
    _STEPS
    + "1. Extract relevant quotes: Find and extract short quotes or passages (≤30 tokens each) from the "
    "documents that help answer the question. Present each quote in the following format:\n"
    '   Quote 1: "<exact text from document>"\n   Quote 2: "<exact text from document>"\n   (Continue as '
    "needed)\n\n"
    "2. List the source documents using this exact format:\n"
    "   Relevant Document IDs: [DOC i], [DOC j], [DOC k]\n"
    "   (Where i, j, k are the indices of documents that contain your selected quotes)\n"
    "   If no documents are relevant, use: Relevant Document IDs: [DOC -1]\n\n"
    "3. Provide your final answer in the following format:\n   The answer is: <your answer here>\n\n"
    "Important: Keep quotes short (≤30 tokens), select only the most relevant passages, and ensure your "
    "document IDs "
    "correspond to the documents containing your quotes.\n\nQuestion: {question}."
)
_IDC_HEAD = (
    "Documents: {context}\n\nInstruction: You are given a set of documents and a question. Your task is "
    "to:\n\n"
    "1. Identify which documents are most relevant to answering the question\n"
    "2. Extract and reproduce the IDs and the full content of those relevant documents\n"
    "3. Provide the final answer based on the relevant documents\n\n"
    "Follow this exact format in your response:\n\nRelevant documents:\n[DOC X]\n"
    "<full content of first relevant document>\n\n[DOC Y]\n<full content of second relevant document>\n\n"
    "(continue for all relevant documents)\n\nThe answer is: <your final answer>\n\nImportant guidelines:\n"
    "- Only include documents that directly help answer the question\n"
    "- Reproduce the ID and the complete content of each relevant document exactly"
)
_IDC = _IDC_HEAD + (
    "\n- The final answer should be concise and directly address the question\n\nQuestion: {question}."
)
_IDC_CODE = _IDC_HEAD + (
    " as provided\n- The final answer should be concise and directly address the question\n"
    "- Base your answer on information found in the relevant documents you identified\n"
    "- Output your answer after the relevant documents you identified\n"
    "- Do not include documents that are less related or irrelevant\n\nQuestion: {question}."
)


def _judge(needed: str, focus: str) -> str:
    return (
        "Documents: {context}\n\nInstruction: You are given a set of documents and a question. Your task "
        "is to analyze "
        "all documents, reason through the question step-by-step, and provide a well-grounded answer.\n\n"
        "Follow this exact format in your response:\n\n**Step 1: Question Analysis**\n"
        f"Break down what the question is asking and identify the key information needed{needed}.\n\n"
        "**Step 2: Document Review**\nBriefly assess which documents contain relevant information for "
        "answering the "
        "question. Consider how each document relates to the question's requirements.\n\n"
        "**Step 3: Reasoning**\nWork through the problem step-by-step using information from the relevant "
        "documents. "
        "For each reasoning step, clearly reference which document(s) support your logic. Use the format: "
        "'According to [DOC X], ...' or 'Document Y states that ...' to ground your reasoning in the "
        "provided "
        "sources.\n\n**Step 4: Answer**\nThe answer is: <your final answer>\n\nImportant guidelines:\n"
        "- Show your complete reasoning process\n- Ground each reasoning step in specific document evidence\n"
        f"- Clearly reference document IDs when using information from them\n{focus}"
        "- Keep your final answer concise but ensure it directly addresses the question\n\nQuestion: "
        "{question}"
    )


PAPER, CODE = "arXiv 2601.18527, Tables 8-9", "released code of arXiv 2601.18527"

_PAPER_PROMPTS = (
    Prompt("ao", _AO, _SYSTEM, no_context=_AO_END, source=PAPER),
    Prompt("id", _ID, _SYSTEM, cites=True, source=PAPER),
    Prompt("idc", _IDC, _SYSTEM, cites=True, source=PAPER),
    Prompt("idq", _IDQ, _SYSTEM, cites=True, source=PAPER),
    Prompt("judge", _judge("", ""), _SYSTEM, cites=True, source=PAPER),
    Prompt("ao_code", _AO_CODE, _SYSTEM, no_context=_AO_END, source=CODE),
    Prompt("idc_code", _IDC_CODE, _SYSTEM, cites=True, source=CODE),
    Prompt(
        "judge_code",
        _judge(" to answer it", "- Focus on documents that directly help answer the question\n"),
        _SYSTEM,
        cites=True,
        source=CODE,
    ),
)
PROMPTS: dict[str, Prompt] = {prompt.name: prompt for prompt in _PAPER_PROMPTS}
