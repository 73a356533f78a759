from cardiosynth.data.check.words import counted, in_words, verdict


def test_counts_are_said_as_a_person_says_them():
    assert verdict(0, 0) == "nothing to mend"
    assert verdict(1, 2) == "1 error, 2 warnings"
    assert counted(1, "case") == "1 case"


def test_the_worst_comes_first_and_many_of_a_kind_are_counted(planted, clean):
    facts = planted([case.with_(spacing_known=False) for case in clean]).facts()
    facts["findings"] *= 4
    facts["findings"].append({"level": "error", "kind": "leak", "message": "patient 1 leaks"})
    lines = in_words(facts).splitlines()
    assert lines[0].endswith("3 cases, 3 with image and mask")
    assert "32 x 32 x 32 voxels of 3.75 x 3.75 x 3.75 mm" in lines[1]
    findings = [line for line in lines if line.startswith(("error", "warning", "info"))]
    assert findings[0] == "error: patient 1 leaks"
    assert "warning: unknown spacing: 6 more" in findings
    assert lines[-1] == "1 error, 12 warnings"
    assert any(line.startswith("left_ventricle") and "200 to 700" in line for line in lines)
