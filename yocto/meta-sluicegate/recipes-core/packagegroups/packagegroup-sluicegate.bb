SUMMARY = "The gateway, and what it takes on most boards"
DESCRIPTION = "The gateway agent with the system's certificate authorities, and the kernel's drivers of the usual USB serial \
adapters where they are modules."
SECTION = "net"
LICENSE = "MIT"

inherit packagegroup

RDEPENDS:${PN} = "ca-certificates sluicegate"
RRECOMMENDS:${PN} = " \
    kernel-module-cdc-acm \
    kernel-module-ch341 \
    kernel-module-cp210x \
    kernel-module-ftdi-sio \
    kernel-module-pl2303 \
"
