SUMMARY = "IoT gateway agent: GPIO and serial sensors to an MQTT broker, and commands back"
DESCRIPTION = "Reads sensors on GPIO lines and serial ports, publishes their readings to an MQTT broker over TLS, \
tells whether the gateway and its devices are alive, and carries commands back."
SECTION = "net"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = " \
    file://LICENSE-MIT;md5=85a9f016da88dbea0ace5f4409ec271e \
    file://LICENSE-APACHE;md5=1836efb2eb779966696f473ee8540542 \
"

PV = "0.1.0+git"

# The checkout that this layer stands in, as it was committed. For a mirror of one's own and a fixed commit, set both.
SLUICEGATE_SRC ?= "git://${SLUICEGATE_CHECKOUT};protocol=file;nobranch=1;usehead=1"
SLUICEGATE_SRCREV ?= "${AUTOREV}"
SRC_URI = "${SLUICEGATE_SRC}"
SRCREV = "${SLUICEGATE_SRCREV}"

inherit cargo cargo-update-recipe-crates systemd useradd
require sluicegate-crates.inc

CARGO_BUILD_FLAGS += "--bin sluicegate"
# The split into a package with debug symbols is done here, not by cargo.
export CARGO_PROFILE_RELEASE_STRIP = "none"

# The class's own would install the library and the examples as well.
do_install() {
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/sluicegate ${D}${bindir}/sluicegate
    install -d ${D}${systemd_system_unitdir}
    install -m 0644 ${S}/systemd/*.service ${D}${systemd_system_unitdir}/
    install -D -m 0644 ${S}/systemd/sluicegate.tmpfiles.conf ${D}${nonarch_libdir}/tmpfiles.d/sluicegate.conf
    install -D -m 0644 ${S}/systemd/sluicegate.catalog ${D}${nonarch_libdir}/systemd/catalog/sluicegate.catalog
    install -D -m 0644 ${S}/systemd/70-sluicegate.rules ${D}${nonarch_base_libdir}/udev/rules.d/70-sluicegate.rules
    install -D -m 0640 ${S}/config/sluicegate.toml ${D}${sysconfdir}/sluicegate/sluicegate.toml
    chgrp sluicegate ${D}${sysconfdir}/sluicegate/sluicegate.toml
    install -d ${D}${docdir}/sluicegate/examples
    install -m 0644 ${S}/config/examples/*.toml ${D}${docdir}/sluicegate/examples/
    install -d ${D}${docdir}/sluicegate/drop-ins
    install -m 0644 ${S}/systemd/drop-ins/*.conf ${D}${docdir}/sluicegate/drop-ins/
}

SYSTEMD_SERVICE:${PN} = "sluicegate.service"

USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system gpio; --system dialout"
USERADD_PARAM:${PN} = "--system --user-group --no-create-home --home-dir ${localstatedir}/lib/sluicegate \
    --shell /sbin/nologin --comment 'Sluicegate IoT gateway' sluicegate"

FILES:${PN} += " \
    ${systemd_system_unitdir}/*.service \
    ${nonarch_libdir}/systemd/catalog/sluicegate.catalog \
    ${nonarch_libdir}/tmpfiles.d/sluicegate.conf \
    ${nonarch_base_libdir}/udev/rules.d/70-sluicegate.rules \
"
CONFFILES:${PN} = "${sysconfdir}/sluicegate/sluicegate.toml"

# The system's roots, where the config names no CA of its own.
RRECOMMENDS:${PN} += "ca-certificates"
