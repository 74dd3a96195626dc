SUMMARY = "Config for a first look: a pretended device, and a broker on the same board"
DESCRIPTION = "Copy this recipe for a config of one's own, which does not change from board to board."
SECTION = "net"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "file://50-example.toml"
S = "${UNPACKDIR}"

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${UNPACKDIR}/50-example.toml ${D}${nonarch_libdir}/sluicegate/conf.d/50-example.toml
}

FILES:${PN} = "${nonarch_libdir}/sluicegate"
RDEPENDS:${PN} = "sluicegate"
