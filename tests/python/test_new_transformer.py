# SPDX-License-Identifier: MIT
"""The worked example of docs/new_transformer.md, done: the code of that page is added to a copy of the sources, and the tests find it."""
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def insert(path, pairs):
    """Put text after other text, which must be there, in a file."""
    text = path.read_text()
    for place, added in pairs:
        assert place in text, f"{path.name} has no {place!r}"
        text = text.replace(place, place + added, 1)
    path.write_text(text)


def test_the_example_passes_the_tests(tmp_path):
    if shutil.which("g++") is None or not Path("/usr/include/gtest/gtest.h").exists():
        pytest.skip("needs g++ and GoogleTest")
    page = (ROOT / "docs" / "new_transformer.md").read_text()
    formulas, cases = re.findall(r"```c\n(.*?)```", page, re.DOTALL)
    descriptor, = re.findall(r"```cpp\n(.*?)```", page, re.DOTALL)
    flow = tmp_path / "flow"
    shutil.copytree(ROOT / "flow", flow)
    (flow / "formulas" / "Skew.h").write_text(formulas)
    insert(flow / "formulas" / "Formulas.h", [('#include "formulas/Analytic.h"\n', '#include "formulas/Skew.h"\n')])
    define, *lines = (line.strip() for line in cases.strip().splitlines() if line.strip())
    added = [("#define TRANSFORMER_ANALYTIC 4\n", define + "\n")]
    transformers = flow / "formulas" / "Transformers.h"
    for line in lines:
        case, function = re.fullmatch(r"(case .*?)\s*// (\w+)", line).groups()
        start, = re.findall(rf"FORMULA [^\n]* {function}\([^\n]*\{{\n    switch \(s.type\) \{{\n", transformers.read_text())
        added.append((start, case + "\n"))
    assert len(added) == 5
    insert(transformers, added)
    function, entry = descriptor.split("\n\n")
    insert(flow / "model" / "TransformerDescriptor.cpp",
           [("namespace {\n", function + "\n"), ("            analyticRange},\n", entry)])
    program = tmp_path / "TestTransformers"
    subprocess.run(["g++", "-std=c++17", "-O0", f"-I{flow}", str(ROOT / "tests" / "cpp" / "TestTransformers.cpp"),
                    str(flow / "model" / "TransformerDescriptor.cpp"), "-lgtest", "-lgtest_main", "-lpthread", "-o", str(program)], check=True)
    output = subprocess.run([program, "--gtest_filter=*skew*"], check=True, capture_output=True, text=True).stdout
    print(output)
    assert "[  PASSED  ] 4 tests." in output
