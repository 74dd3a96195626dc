"""What the tests on virtual boards have in common: the programs they bring, the board's run, what is kept of a failure."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import machines

# Daemons are not in everybody's PATH.
os.environ["PATH"] += ":/usr/sbin:/sbin"

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BROKER = ("mosquitto", "mosquitto_pub", "mosquitto_sub")

faults = []


def expect(what, expected, found):
    if expected != found:
        faults.append(f"{what}:\n    expected {expected}\n    found    {found}")


def agent(folder, profile="dev"):
    """The agent for this machine, without what a board does not need."""
    build = ["cargo", "build", "--locked", "--profile", profile, "--bin", "sluicegate",
             "--message-format", "json-render-diagnostics"]
    lines = subprocess.run(build, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    built = [m["executable"] for m in map(json.loads, lines.splitlines()) if m.get("executable")]
    subprocess.run(["strip", "-o", folder / "sluicegate", built[-1]], check=True)
    return folder / "sluicegate"


def program(board):
    """The program for an emulated board."""
    build = [ROOT / "targets/build", "--program", machines.BOARDS[board].target]
    return pathlib.Path(subprocess.run(build, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())


def helper(folder, name, compiler="gcc"):
    """A C program of this folder, which runs wherever a kernel does."""
    subprocess.run([compiler, "-O2", "-Wall", "-Werror", "-static", "-o", folder / name, HERE / f"{name}.c"], check=True)
    return folder / name


def certificates(share):
    """An authority and the certificate of a broker on the board, valid from now on: ca.pem, server.pem, server.key."""
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9"]
    quiet = {"cwd": share, "stderr": subprocess.DEVNULL, "check": True}
    subprocess.run([*new, "-subj", "/CN=lab", "-keyout", "ca.key", "-out", "ca.pem"], **quiet)
    subprocess.run([*new, "-subj", "/CN=broker", "-keyout", "server.key", "-out", "server.pem", "-CA", "ca.pem",
                    "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1",
                    "-addext", "basicConstraints=critical,CA:false"], **quiet)


def board(share, *command, tools=(), options=(), name="uml"):
    """Runs the command on a board, which may be an emulated one; a fault when it fails."""
    share.mkdir(exist_ok=True)
    call = [HERE / "board", name, "--times", "--share", share, *options]
    call += [word for tool in tools for word in ("--tool", tool)]
    status = subprocess.run([*map(str, call), "--", *command]).returncode
    if status != 0:
        faults.append(f"the board's own checks (exit status {status}), see above")
    return status == 0


def verdict(name, share):
    """True where there were no faults; else they are printed and forgotten, and the share is kept."""
    if not faults:
        return True
    for fault in faults[:20]:
        print(f"{name}: {fault}")
    faults.clear()
    kept = pathlib.Path(tempfile.mkdtemp(prefix="lab-"))
    shutil.copytree(share, kept, dirs_exist_ok=True)
    print(f"{name}: FAILED; the board's share is kept in {kept}", flush=True)
    return False


def result(board, target, check, good):
    """A line that targets/test reads."""
    print(f"RESULT board={board} target={target} check={check} {'ok' if good else 'failed, see above'}", flush=True)
