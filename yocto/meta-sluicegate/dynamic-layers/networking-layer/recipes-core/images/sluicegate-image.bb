SUMMARY = "An image to look at, with a gateway and a broker"
DESCRIPTION = "The gateway with a pretended device, and mosquitto beside it, for a first look on a board."
SECTION = "net"
LICENSE = "MIT"

inherit core-image

IMAGE_INSTALL = " \
    packagegroup-core-boot \
    packagegroup-sluicegate \
    sluicegate-example-config \
    mosquitto \
    mosquitto-clients \
    ${CORE_IMAGE_EXTRA_INSTALL} \
"
IMAGE_LINGUAS = ""
# Room for what waits for the broker, and for what it leaves free (queue.telemetry.max_bytes and queue.keep_free), in KiB.
IMAGE_ROOTFS_EXTRA_SPACE = "131072"
