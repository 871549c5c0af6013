"""Texts of the kit for learners, in English and Chinese."""

from minillama.text_language import CHINESE

_CHINESE = {
    "stopped after {seconds:g} s": "运行 {seconds:g} 秒后被停止",
    "stopped after {count:,} calls of what it was given": "调用所给对象 {count:,} 次后被停止",
    "the code ended its process (exit status {status})": "代码结束了自己的进程（退出状态 {status}）",
    "the process was ended by {signal}": "进程被 {signal} 结束",
    "the result has more than {size} MB": "结果超过 {size} MB",
    "the code sent something that is no answer": "代码发送的内容不是答案",
    "the cell defines no function `{name}`": "该单元格没有定义函数 `{name}`",
    "this check runs in the process of your code, and does not accept {found}; only compute":
        "此检查在你的代码的进程中运行，不接受 {found}；请只做计算",
    "no cell has the id {cell} or defines `{function}`": "没有单元格的 id 是 {cell}，也没有单元格定义 `{function}`",
    "the cell with the id {cell} is missing; found by the name `{function}`":
        "缺少 id 为 {cell} 的单元格；按名称 `{function}` 找到",
    "the cell with the id {cell} has no such function; found by the name `{function}`":
        "id 为 {cell} 的单元格没有这个函数；按名称 `{function}` 找到",
    "uses your own measurements; a reader gives the points": "用到你自己的测量结果；由阅卷人给分",
    "the cell has {count:,} characters; an exercise takes a few lines": "该单元格有 {count:,} 个字符；一道练习只需几行",
    "the cell is not Python: {error}": "该单元格不是 Python：{error}",
    "this name is not in the code that grading runs: {names}": "评分运行的代码中没有这个名称：{names}",
    "not handed in": "未提交",
    "Feedback": "反馈",
    "points": "分",
    "{earned:g} of {possible:g} points": "{possible:g} 分中得 {earned:g} 分",
    "lab {lab}": "实验 {lab}",
    "your code": "你的代码",
    "passed": "通过",
    "not yet": "尚未通过",
    "not tried": "未尝试",
    "missing": "缺失",
    "stopped": "被停止",
    "by a reader": "由阅卷人评分",
    "fill in the cell, and run its check": "请填写该单元格，然后运行它的检查",
    "Your notebook was read, and only the exercises' cells ran, with hidden inputs. Your results files were not used.":
        "阅卷读取了你的笔记本，只运行了练习单元格，并使用隐藏的输入。没有使用你的结果文件。",
}  # fmt: skip


def learner_text(language: str, text: str, /, **values: object) -> str:
    """A text in the learner's language, with the values in its places."""
    found = _CHINESE.get(text, text) if language == CHINESE else text
    return found.format(**values) if values else found
