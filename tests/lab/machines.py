"""The emulated boards: whole machines by QEMU, without KVM, with Debian's own kernels for them or with ours.

What `board` does for one of them, and the table of what there is.
"""
import argparse
import dataclasses
import gzip
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Board:
    what: str
    # The Rust target of its programs, and where their shared libraries are; None: they are static.
    target: str
    libraries: str | None
    qemu: str
    # The UARTs: that of the console and that of the sensor, and whether the emulator counts the sensor's first.
    console: str
    sensor: str
    nic: str
    sensor_first: bool = False
    # Debian's kernel: architecture and package, or None for one of ours.
    kernel: tuple[str, str] | None = None
    modules: str = ""
    # The device tree, and what is to be changed in it, as fdtput has it.
    tree: str | None = None
    edits: tuple[str, ...] = ()
    # The driver of the sensor's UART can switch an RS-485 transceiver.
    rs485: bool = False


USB_NIC = "-netdev {net},id=n -device usb-net,netdev=n"
PI_MODULES = "phy-generic dwc2 cdc_ether rndis_host"
# On the Pis the sensor has the PL011: the mini UART delivers nothing before the guest's first write, in the emulator. It
# is off in the tree.
MINI_UART = "-t s {} /soc/serial@7e215040 status okay"

BOARDS = {
    "imx6": Board(
        "i.MX6 Quad (Sabre Lite), ARMv7", "armv7-unknown-linux-gnueabihf", "/usr/arm-linux-gnueabihf",
        "qemu-system-arm -M sabrelite -m 512", "ttymxc1", "ttymxc0", "-nic {net}", sensor_first=True,
        kernel=("armhf", "linux-image-armmp"), modules="fec gpio-mxc micrel", tree="imx6q-sabrelite.dtb",
        # The emulator has no DMA engine for the UARTs.
        edits=("-d {} /soc/bus@2000000/spba-bus@2000000/serial@2020000 dmas dma-names",
               "-d {} /soc/bus@2100000/serial@21e8000 dmas dma-names",
               "{} /soc/bus@2000000/spba-bus@2000000/serial@2020000 uart-has-rtscts"), rs485=True),
    "rpi0": Board(
        "Raspberry Pi Zero, ARMv6", "arm-unknown-linux-musleabihf", None,
        "qemu-system-arm -M raspi0", "ttyS1", "ttyAMA0", USB_NIC, sensor_first=True,
        kernel=("armel", "linux-image-rpi"), modules="cdc_ether rndis_host", tree="bcm2835-rpi-zero.dtb",
        # The driver of the watchdog, which is the power's too, dies in the emulator; USB is to be the host's side.
        edits=(MINI_UART, "-t s {} /soc/watchdog@7e100000 status disabled", "-t s {} /soc/usb@7e980000 dr_mode host"),
        rs485=True),
    "rpi2": Board(
        "Raspberry Pi 2, ARMv7", "armv7-unknown-linux-gnueabihf", "/usr/arm-linux-gnueabihf",
        "qemu-system-arm -M raspi2b", "ttyS1", "ttyAMA0", USB_NIC, sensor_first=True,
        kernel=("armhf", "linux-image-armmp"), modules=PI_MODULES, tree="bcm2836-rpi-2-b.dtb", edits=(MINI_UART,), rs485=True),
    "rpi3": Board(
        "Raspberry Pi 3, aarch64", "aarch64-unknown-linux-gnu", "/usr/aarch64-linux-gnu",
        "qemu-system-aarch64 -M raspi3b", "ttyS1", "ttyAMA0", USB_NIC, sensor_first=True,
        kernel=("arm64", "linux-image-arm64"), modules=PI_MODULES, tree="bcm2837-rpi-3-b.dtb",
        # The PL011 is the Bluetooth chip's there.
        edits=(MINI_UART, "-r {} /soc/serial@7e201000/bluetooth"), rs485=True),
    "malta": Board(
        "MIPS Malta, little-endian", "mipsel-unknown-linux-musl", None,
        "qemu-system-mipsel -M malta -m 256 -vga none", "ttyS0", "ttyS1", "-netdev {net},id=n -device pcnet,netdev=n,romfile=",
        kernel=("mipsel", "linux-image-4kc-malta"), modules="pcnet32"),
    "malta-be": Board(
        "MIPS Malta, big-endian, with simulated GPIO", "mips-unknown-linux-gnu", "/usr/mips-linux-gnu",
        "qemu-system-mips -M malta -m 256 -vga none", "ttyS0", "ttyS1", "-netdev {net},id=n -device pcnet,netdev=n,romfile="),
    "armv7": Board(
        # Without LPAE the PCI bus must lie below 4 GiB. Its second UART is the secure world's.
        "ARMv7, with simulated GPIO", "armv7-unknown-linux-gnueabihf", "/usr/arm-linux-gnueabihf",
        "qemu-system-arm -M virt,highmem=off -cpu cortex-a15 -m 256", "ttyAMA0", "", "-netdev {net},id=n -device virtio-net-pci,netdev=n,romfile="),
}


def options(words):
    boards = "\n".join(f"  {name:9}{board.what}" for name, board in BOARDS.items())
    p = argparse.ArgumentParser(
        prog=f"board {words[0]}", formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"Run a command on an emulated board, or without one a shell on its console.\n\n{boards}\n\n"
                    "It reaches nothing but 10.0.2.100:8883, which is --broker's port of this machine's loopback.")
    p.add_argument("--share", type=pathlib.Path, help="host folder, on the board /share (a copy, where the kernel is Debian's)")
    p.add_argument("--tool", action="append", default=[], help="copy this program for the board and its libraries in")
    p.add_argument("--broker", type=int, metavar="PORT")
    p.add_argument("--sensor", metavar="SOCKET", help="what listens on this Unix socket is the far end of the UART /dev/$SENSOR")
    p.add_argument("--pins", metavar="SOCKET", help="a Unix socket to make, which speaks QEMU's qtest protocol")
    p.add_argument("--limit", type=float, default=300, help="seconds of real time")
    p.add_argument("--times", action="store_true", help="report boot and run time")
    p.add_argument("command", nargs="*")
    o = p.parse_args(words[1:])
    o.board = words[0]
    return o


def prepare(*words):
    done = subprocess.run([HERE / "prepare-emulated", *words], stdout=subprocess.PIPE, text=True, check=True)
    return pathlib.Path(done.stdout.strip())


def in_load_order(folder, names):
    """The files of the modules and of all that they need, each after what it needs. What is built in has no file."""
    needs = dict(line.split(":", 1) for line in (folder / "modules.dep").read_text().splitlines())
    files = {re.sub(r"\.ko.*", "", path.rsplit("/", 1)[-1]).replace("-", "_"): path for path in needs}
    order = []
    for name in names:
        path = files.get(name.replace("-", "_"))
        if path:
            order += [p for p in [*reversed(needs[path].split()), path] if p not in order]
    return order


def with_libraries(program, sysroot):
    """The program's shared libraries and its loader, all of which lie in the sysroot's lib."""
    found, open_ends = {}, [program]
    while open_ends:
        asked = subprocess.run(["readelf", "-ld", open_ends.pop()], capture_output=True, text=True).stdout
        for name in re.findall(r"\(NEEDED\).*\[(.+)\]|program interpreter: .*/(.+)\]", asked):
            name = "".join(name)
            if name not in found:
                found[name] = pathlib.Path(sysroot, "lib", name)
                open_ends.append(found[name])
    return found.values()


def initrd(o, board, built, target):
    """Pack busybox, emulated-init, the scripts, the drivers and the tools."""
    with tempfile.TemporaryDirectory(prefix="initrd-") as folder:
        tree = pathlib.Path(folder)
        for sub in ("bin", "lib", "dev", "modules"):
            (tree / sub).mkdir()
        shutil.copytree(HERE / "guest", tree / "guest")
        (tree / "guest/emulated-init").rename(tree / "init")
        order = []
        if board.kernel:
            shutil.copy(built / "bin/busybox", tree / "bin")
            modules = next((built / "lib/modules").iterdir())
            order = in_load_order(modules, board.modules.split())
            for path in order:
                shutil.copy(modules / path, tree / "modules")
            if o.share:
                shutil.copytree(o.share, tree / "share")
        else:
            shutil.copy(built / "programs/busybox", tree / "bin")
        (tree / "modules/order").write_text("".join(path.rsplit("/", 1)[-1] + "\n" for path in order))
        for tool in o.tool:
            tool = shutil.which(tool, path=built / "programs") or tool
            shutil.copy(tool, tree / "bin")
            for library in with_libraries(tool, board.libraries):
                shutil.copy(library, tree / "lib")
        (tree / "board").write_text(
            f"BOARD={o.board} SENSOR={board.sensor} DATE={time.time():.0f} COMMAND={shlex.quote(shlex.join(o.command))}\n")
        names = "\n".join(sorted(str(path.relative_to(tree)) for path in tree.rglob("*")))
        archive = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=tree, input=names.encode(),
                                 stdout=subprocess.PIPE, check=True).stdout
        target.write_bytes(gzip.compress(archive, 1))


def qemu(o, board, work):
    """How the board is started."""
    built = prepare(*board.kernel) if board.kernel else prepare(o.board)
    initrd(o, board, built, work / "initrd")
    line = board.qemu.split() + ["-display", "none", "-no-reboot", "-initrd", str(work / "initrd")]
    line += ["-append", f"console={board.console},115200 quiet rdinit=/init panic=-1"]
    if board.kernel:
        line += ["-kernel", str(next((built / "boot").glob("vmlinuz-*")))]
    else:
        line += ["-kernel", str(built / "kernel")]
        if o.share:
            line += ["-virtfs", f"local,path={o.share},mount_tag=share,security_model=none"]
    if board.tree:
        tree = work / "tree"
        shutil.copy(next((built / "usr/lib").glob(f"linux-image-*/**/{board.tree}")), tree)
        for edit in board.edits:
            subprocess.run(["fdtput", *edit.format(tree).split()], check=True)
        line += ["-dtb", str(tree)]
    net = "user,restrict=on"
    if o.broker:
        net += f",guestfwd=tcp:10.0.2.100:8883-cmd:{HERE / 'to-host'} {o.broker}"
    line += [word.format(net=net) for word in board.nic.split()]
    console = ["-serial", "stdio" if o.command else "mon:stdio"]
    sensor = ["-serial", "null"]
    if o.sensor:
        sensor = ["-chardev", f"socket,id=sensor,path={o.sensor}", "-serial", "chardev:sensor"]
    line += sensor + console if board.sensor_first else console + sensor
    if o.pins:
        line += ["-qtest", f"unix:{o.pins},server=on,wait=off", "-qtest-log", "/dev/null", "-accel", "tcg"]
    return line


def run(o, line):
    """What the command prints comes out here; its exit status, or 124 at the time limit, or 125."""
    start, up, status, inside, last = time.monotonic(), None, None, False, []
    # A person's terminal is nothing that a board should read from.
    given = subprocess.DEVNULL if sys.stdin.isatty() else None
    guest = subprocess.Popen(line, stdin=given, stdout=subprocess.PIPE, start_new_session=True)
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(guest.pid, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, o.limit)
    try:
        for raw in guest.stdout:
            text = raw.decode(errors="replace").rstrip("\r\n")
            last = (last + [text])[-40:]
            if end := re.search(r"@@END (\d+)$", text):
                status = int(end[1])
                break
            if inside:
                print(text, flush=True)
            if begin := re.search(r"@@BEGIN ([\d.]+)$", text):
                inside, up = True, begin[1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if guest.poll() is None:
            os.killpg(guest.pid, signal.SIGKILL)
        guest.wait()
    took = time.monotonic() - start
    if o.times:
        print(f"board: up after {up or '-1'} s by its own clock, off after {took:.2f} s", file=sys.stderr)
    if status is None:
        status = 124 if took >= o.limit else 125
        print(f"board: {'time limit' if status == 124 else 'guest died'}; console:", *last, sep="\n", file=sys.stderr)
    return status


def main(words):
    o = options(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the guest ends too
    with tempfile.TemporaryDirectory(prefix="board-") as folder:
        line = qemu(o, BOARDS[o.board], pathlib.Path(folder))
        return run(o, line) if o.command else subprocess.run(line).returncode
