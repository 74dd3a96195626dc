"""What the scripts of this folder share: the table, and how a target's program is built."""
import contextlib
import dataclasses
import fcntl
import hashlib
import inspect
import json
import os
import pathlib
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
CACHE = pathlib.Path(os.environ.get("SLUICEGATE_CACHE") or
                     pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "sluicegate")
# From PyPI, into a folder of their own.
ZIG, CARGO_ZIGBUILD = "0.15.2", "0.24.0"
# Programs of other sources stay for so many seconds.
KEPT = 14 * 86400
# What the program is made of, besides the compilers.
INPUTS = ["src", "Cargo.toml", "Cargo.lock"]
# The standard library is built with the program: there is none for MIPS, and what is built with the program's own
# options is smaller. A stripped program has no use for `backtrace`, which would find no names.
STD = ["-Zbuild-std=std,panic_unwind", "-Zbuild-std-features=panic-unwind,optimize_for_size"]

# All kinds of devices, and not `desk`: what was recorded is replayed, and frames are decoded, where there is a whole build.
# Cargo.toml's defaults are for that one.
FEATURES = ["--no-default-features", "--features", "gpio,modbus,serial"]


@dataclasses.dataclass
class Target:
    """A row of the table, see there."""
    name: str
    boards: str
    linker: str
    gnu: str
    machine: str
    budget: int
    emulator: list = dataclasses.field(default_factory=list)
    flags: list = dataclasses.field(default_factory=list)
    debian: str = ""
    variant: str = ""

    @property
    def variable(self):
        """The name as it stands in the names of environment variables."""
        return self.name.replace("-", "_")

    def is_native(self):
        """Whether this machine runs its programs without an emulator."""
        return platform.machine() == self.machine

    def runner(self):
        """The words before the program that run it here."""
        return [] if self.is_native() else self.emulator

    def packages(self):
        """Debian's packages that a build for it takes, besides a compiler for this machine."""
        if self.gnu == platform.machine() + "-linux-gnu":
            return []
        tools = self.gnu.replace("_", "-")
        if self.linker == "zig":
            return [f"binutils-{tools}", "python3-venv"]
        return [f"gcc-{tools}", f"libc6-dev-{self.debian or self.gnu.split('-')[0]}-cross"]


def table():
    """All targets, by their names."""
    rows = tomllib.loads((HERE / "table.toml").read_text())["target"]
    return {row["name"]: Target(**row) for row in rows}


def chosen(names):
    """The targets of these names; all of them for none."""
    targets = table()
    for name in names:
        if name not in targets:
            sys.exit(f"there is no target `{name}`: expected one of {', '.join(targets)}")
    return [targets[name] for name in names or targets]


def run(*words, **options):
    """Runs a command, and ends with an error where it fails."""
    done = subprocess.run([str(word) for word in words], **options)
    if done.returncode:
        sys.exit(f"this failed with {done.returncode}: {' '.join(map(str, words))}")
    return done


def output(*words, **options):
    """What a command prints."""
    return run(*words, stdout=subprocess.PIPE, text=True, **options).stdout.strip()


@contextlib.contextmanager
def once(folder):
    """Whether what belongs into this folder has yet to be made, by who asks: another one waits meanwhile."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(folder.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        if done.exists():
            yield False
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield True
        done.touch()


def zig():
    """The folder with zig and cargo-zigbuild."""
    return python_tools(f"zig-{ZIG}-{CARGO_ZIGBUILD}", f"ziglang=={ZIG}", f"cargo-zigbuild=={CARGO_ZIGBUILD}")


def python_tools(name, *packages):
    """The folder with the programs of these packages of PyPI's, which are installed where they are missing."""
    folder = CACHE / "tools" / name
    with once(folder) as is_missing:
        if is_missing:
            run(sys.executable, "-m", "venv", folder)
            run(folder / "bin/pip", "-q", "--disable-pip-version-check", "install", *packages, stdout=sys.stderr)
    return folder / "bin"


def tool(name, version):
    """A tool of cargo's, installed where it is missing. Unoptimised it is built in a third of the time."""
    folder = CACHE / f"tools/{name}-{version}"
    with once(folder) as is_missing:
        if is_missing:
            environment = {key: value for key, value in os.environ.items() if key != "CARGO_TARGET_DIR"}
            run("cargo", "install", "--quiet", "--locked", "--debug", "--root", folder, f"{name}@{version}",
                env={**environment, "CARGO_PROFILE_DEV_DEBUG": "0"}, stdout=sys.stderr)
    return folder / "bin" / name


def compilers(target):
    """The versions of all that compiles and links the target's program."""
    versions = [output("rustc", "-vV"), output(f"{target.gnu}-strip", "--version")]
    if target.linker == "zig":
        versions.append(f"zig {ZIG} {CARGO_ZIGBUILD}")
    else:
        versions += [output(f"{target.gnu}-gcc", "--version"), output(f"{target.gnu}-ld", "--version")]
        # The C library, where it is Debian's.
        for package in filter(lambda package: shutil.which("dpkg-query"), ["libc6-dev", *target.packages()]):
            found = subprocess.run(["dpkg-query", "-W", package], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            versions.append(found.stdout)
    return "\n".join(versions)


def key(target):
    """Names what the target's program is made of: the same key, the same bytes."""
    files = [file for name in INPUTS for file in sorted([ROOT / name, *(ROOT / name).rglob("*")]) if file.is_file()]
    text = "".join(f"{file.relative_to(ROOT)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in files)
    text += json.dumps(tomllib.loads((ROOT / ".cargo/config.toml").read_text())["target"].get(target.name))
    text += compilers(target) + "".join(map(inspect.getsource, (environment, options, cargo, make))) + " ".join(STD + FEATURES)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Variables of who builds that would shape the program.
SHAPING = re.compile(r"(CARGO_(PROFILE|TARGET|BUILD|ENCODED)_?|RUSTFLAGS|RUSTC|RUSTDOC|CRATE_CC_|(HOST|TARGET)_|"
                     r"[A-Z]*(CC|CXX|AR|LD|FLAGS|RANLIB)(_|$)|SOURCE_DATE_EPOCH)")


def environment(target, folder, strip):
    """In which cargo makes the same program whoever runs it."""
    sysroot = output("rustc", "--print", "sysroot")
    home = os.environ.get("CARGO_HOME") or str(pathlib.Path.home() / ".cargo")
    # No folder of this machine stands in the program, so that it is the same from wherever it is built. The sources' own
    # are relative as it is; with them among these, each clone would build all libraries anew.
    places = {folder: "/target", home: "/cargo", f"{sysroot}/lib/rustlib/src/rust": "/rustc"}
    prefixes = shlex.join(f"-ffile-prefix-map={place}={name}" for place, name in places.items())
    made = {name: value for name, value in os.environ.items() if not SHAPING.match(name)}
    made |= {
        "RUSTC_BOOTSTRAP": "1",
        "CARGO_TARGET_DIR": str(folder),
        "CARGO_INCREMENTAL": "0",
        "CARGO_PROFILE_RELEASE_STRIP": "true" if strip else "none",
        "SOURCE_DATE_EPOCH": "1767225600",
        "CC_SHELL_ESCAPED_FLAGS": "1",
        f"CFLAGS_{target.variable}": prefixes,
    }
    if target.linker == "zig":
        made["PATH"] = f"{zig()}:{made['PATH']}"
    else:
        made[f"CC_{target.variable}"] = f"{target.gnu}-gcc"
        made[f"CARGO_TARGET_{target.variable.upper()}_LINKER"] = f"{target.gnu}-gcc"
    return made, [f"--remap-path-prefix={place}={name}" for place, name in places.items()]


def options(target, flags):
    """What cargo is told of the target."""
    return ["--locked", *STD, *FEATURES, "--target", target.name, "--config", f"target.{target.name}.rustflags={flags!r}"]


def cargo(target, folder, word, *words, strip=True, root=ROOT):
    """Runs `cargo build` or `cargo check` for the target, with all that it takes, in this folder for what is built."""
    made, flags = environment(target, folder, strip)
    program = ["cargo", word]
    if target.linker == "zig":
        program = ["cargo-zigbuild", {"build": "zigbuild"}.get(word, word)]
    run(*program, *options(target, flags), *words, env=made, cwd=root, stdout=sys.stderr)
    return folder / target.name / "release/sluicegate"


def make(target, folder, root, to):
    """Builds the program of the sources in `root`, stripped, as the file `to`."""
    # cargo knows sources by their place below the workspace and their dates, which are those of another clone perhaps.
    run("cargo", "clean", "--quiet", "--release", "--package", "sluicegate", "--target", target.name, cwd=root,
        env={**os.environ, "CARGO_TARGET_DIR": str(folder)})
    fresh = cargo(target, folder, "build", "--quiet", "--release", "--bin", "sluicegate", root=root)
    # `.pdr` is for debuggers of MIPS; it is never loaded, and left in by the linkers' own stripping.
    run(f"{target.gnu}-strip", "--remove-section=.pdr", "-o", to, fresh)
    return to


def program(target):
    """The target's stripped release program, built where there is none yet of just these sources."""
    folder = CACHE / "programs" / target.name / key(target)
    with once(folder) as is_missing:
        if is_missing:
            print(f"building for {target.name}; this takes some minutes", file=sys.stderr, flush=True)
            make(target, CACHE / "builds" / target.name, ROOT, folder / "sluicegate")
    for other in folder.parent.iterdir():
        if other.is_dir() and other.stat().st_mtime < time.time() - KEPT:
            shutil.rmtree(other, ignore_errors=True)
    return folder / "sluicegate"
