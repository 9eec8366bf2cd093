#!/usr/bin/env python3
"""Checks that README.zh-CN.md is in step with README.md and the services' READMEs.

usage: check-readme.py [--help]

* Each command that it shows is in README.md or in the README of a service, with the same answer.
* Each command and each registry URL of README.md is in it.
* The first Rust block of README.md is in it, with comments of its own.
* Its links to files lead to files.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHINESE = "README.zh-CN.md"
ENGLISH = "README.md"
SERVICES = ["add-service/README.md", "trim-service/README.md"]


def blocks(text, language):
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def without_comment(command):
    return re.sub(r"\s+# .*", "", command).strip()


def commands(text):
    """The commands of the console blocks, each with the lines of its answer."""
    found = []
    for block in blocks(text, "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((without_comment(line[2:]), []))
            elif found:
                found[-1][1].append(line)
    return found


def inline(text):
    """The code spans of the prose."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def inline_commands(text):
    return [span for span in inline(text) if re.match(r"(scripts/\S+\.sh|cargo) ?", span)]


def urls(text):
    return [span for span in inline(text) if re.match(r"[a-z+]+://", span)]


def code(block):
    return [line for line in map(lambda line: re.sub(r"\s*//.*", "", line), block.splitlines()) if line]


def mistakes(chinese, english, services):
    shown = commands(chinese)
    if not shown:
        yield "it shows no command"
    known = {}
    for text in [english, *services]:
        for command, answer in commands(text):
            known.setdefault(command, answer)
    for command, answer in shown:
        if command not in known:
            yield f"the command is in no English README: {command}"
        elif answer and answer != known[command]:
            yield f"another answer than in the English README: {command}"

    seen = {command for command, _ in shown} | set(inline(chinese))
    for command in [command for command, _ in commands(english)] + inline_commands(english):
        if command not in seen:
            yield f"the command of {ENGLISH} is missing: {command}"
    for url in urls(english):
        if url not in seen:
            yield f"the URL of {ENGLISH} is missing: {url}"

    example = code(blocks(english, "rust")[0])
    if example not in map(code, blocks(chinese, "rust")):
        yield f"the Rust example of {ENGLISH} is missing, or differs"

    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", chinese):
        if "://" not in target and not (ROOT / target).exists():
            yield f"a link leads to no file: {target}"


def main():
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(__doc__.strip())
        return 0
    if sys.argv[1:]:
        print(f"unknown argument {sys.argv[1]!r}; see --help", file=sys.stderr)
        return 2
    read = lambda name: (ROOT / name).read_text(encoding="utf-8")
    found = list(mistakes(read(CHINESE), read(ENGLISH), [read(name) for name in SERVICES]))
    for mistake in found:
        print(f"{CHINESE}: {mistake}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
