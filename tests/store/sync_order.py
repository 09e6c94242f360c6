"""The order of system calls that makes a checkpoint survive a power loss: all writes, fsync of the file, rename,
fsync of its folder. Usage: sync_order.py MAKE_CHECKPOINT. Skips (77) where strace is missing or may not trace."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

maker = sys.argv[1]
if not shutil.which("strace"):
    print("skipped: strace is not installed")
    sys.exit(77)

with tempfile.TemporaryDirectory() as folder:
    log = os.path.join(folder, "log")
    calls = "openat,open,creat,close,write,pwrite64,pwritev,ftruncate,fsync,fdatasync,rename,renameat,renameat2,link"
    traced = subprocess.run(["strace", "-f", "-y", "-o", log, "-e", "trace=" + calls, maker, folder],
                            capture_output=True, text=True,
                            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})  # which needs ptrace itself
    if traced.returncode != 0 and re.search(r"ptrace|Operation not permitted", traced.stderr):
        print("skipped: strace may not trace here:", traced.stderr.splitlines()[0])
        sys.exit(77)
    assert traced.returncode == 0, traced.stderr
    events = []  # of model.h5 and its temporary name alone
    target = os.path.join(os.path.realpath(folder), "model.h5")
    for line in open(log, encoding="utf-8"):
        call = re.match(r"\d+\s+(\w+)\((.*)\)\s+= (-?\d+)", line)
        if not call or int(call.group(3)) < 0:
            continue
        name, arguments = call.group(1), call.group(2)
        if name.startswith("rename") or name == "link":
            paths = re.findall(r'"([^"]*)"', arguments)
            assert paths[0].startswith(target + ".tmp-") and paths[1] == target, line
            events.append("rename")
        elif ".tmp-" in arguments and name in ("write", "pwrite64", "pwritev", "ftruncate"):
            events.append("write")
        elif name in ("fsync", "fdatasync"):
            path = re.search(r"<(.*)>", arguments).group(1)
            if path.startswith(target + ".tmp-"):
                events.append("fsync")
            elif path == os.path.dirname(target):
                events.append("fsync folder")
        elif name.startswith(("open", "creat")) and f'"{target}"' in arguments:
            assert "O_WRONLY" not in arguments and "O_RDWR" not in arguments, "written in place: " + line

order = [event for i, event in enumerate(events) if event != "write" or events[i - 1:i] != ["write"]]
once = ["write", "fsync", "rename", "fsync folder"]
assert order == once * 2, order
print(len(events), "calls in order:", ", ".join(once), "(twice)")
