"""Prints the line of a case from the report of `millrace prove --json`. Exit status 1 if a promise was broken."""

import json
import sys

case, mode, seconds, report, log = sys.argv[1:]


def fail(reason):
    """Ends with the reason, and with what the case printed."""
    with open(log) as file:
        sys.exit(f"{case:<22} FAILED: {reason}  [{seconds} s]\n{file.read()}")


with open(report) as file:
    text = file.read()
if "{" not in text:
    fail("no report")
found = json.loads(text)
if found["verdict"] in ("failed", "not_run"):
    fail(found.get("error") or found["needs"])

# Figures of a broken case are one level deeper.
figures = found.get("measured", found)
lost = figures["lost"]
if mode == "sync":
    is_good = found["verdict"] == "kept"
    verdict = "kept" if is_good else f"BROKEN ({figures['broken']} other broken promises)"
else:
    # What is lost takes more with it: a state that was seen, the record of a contradiction. So these are not judged.
    is_good = lost > 0
    verdict = f"{lost} of {figures['acknowledged']} lost, which this mode allows" if is_good else "NOTHING LOST: no proof"
print(f"{case:<22} {figures['acknowledged']:>6} {figures['recovery_s']:>8.1f} s {lost:>6} {figures['doubled']:>8}  {verdict}"
      f"  [{seconds} s]", flush=True)
if not is_good:
    print("".join(f"    {example}\n" for example in figures["examples"]), end="")
sys.exit(not is_good)
