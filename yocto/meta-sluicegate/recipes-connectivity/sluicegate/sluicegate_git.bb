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
SRC_URI = "${SLUICEGATE_SRC} file://run-ptest"
SRCREV = "${SLUICEGATE_SRCREV}"

# Config of one's own: each of these files, which a .bbappend adds to SRC_URI, goes to /usr/lib/sluicegate/conf.d.
SLUICEGATE_CONFIG ?= ""
# Of systemd/drop-ins, without `.conf`: those that the board's kernel needs.
SLUICEGATE_DROP_INS ?= ""

inherit bash-completion cargo cargo-update-recipe-crates ptest systemd useradd
require sluicegate-crates.inc

# Kinds of devices. `desk`, which replays what a board has recorded, is not for boards.
PACKAGECONFIG ??= "gpio modbus serial"
PACKAGECONFIG[desk] = "--features desk,,"
PACKAGECONFIG[gpio] = "--features gpio,,"
PACKAGECONFIG[modbus] = "--features modbus,,"
PACKAGECONFIG[serial] = "--features serial,,"
CARGO_BUILD_FLAGS += "--no-default-features"

# The split into a package with debug symbols is done here, not by cargo.
export CARGO_PROFILE_RELEASE_STRIP = "none"

do_compile() {
    oe_cargo_build --bin sluicegate
}

# The tests of the parts, and the demo: the whole gateway with a broker and devices that are played.
do_compile_ptest() {
    oe_cargo_fix_env
    oe_cargo_build --example demo
    cargo test ${CARGO_BUILD_FLAGS} ${PACKAGECONFIG_CONFARGS} --no-run --lib --message-format json >${B}/unit-tests.json
}

# The class's own would install the library and the examples as well.
do_install() {
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/sluicegate ${D}${bindir}/sluicegate
    install -d ${D}${systemd_system_unitdir}
    install -m 0644 ${S}/systemd/*.service ${D}${systemd_system_unitdir}/
    install -D -m 0644 ${S}/systemd/sluicegate.tmpfiles.conf ${D}${nonarch_libdir}/tmpfiles.d/sluicegate.conf
    install -D -m 0644 ${S}/systemd/sluicegate.catalog ${D}${nonarch_libdir}/systemd/catalog/sluicegate.catalog
    install -D -m 0644 ${S}/systemd/70-sluicegate.rules ${D}${nonarch_base_libdir}/udev/rules.d/70-sluicegate.rules
    # As tmpfiles would make them, which can't on a read-only root.
    install -d -m 0750 ${D}${sysconfdir}/sluicegate
    install -d -m 0750 ${D}${sysconfdir}/sluicegate/conf.d
    install -D -m 0640 ${S}/config/sluicegate.toml ${D}${sysconfdir}/sluicegate/sluicegate.toml
    chgrp -R sluicegate ${D}${sysconfdir}/sluicegate
    install -D -m 0644 ${S}/docs/man/sluicegate.1 ${D}${mandir}/man1/sluicegate.1
    install -D -m 0644 ${S}/docs/man/sluicegate.toml.5 ${D}${mandir}/man5/sluicegate.toml.5
    install -D -m 0644 ${S}/docs/completions/sluicegate.bash ${D}${datadir}/bash-completion/completions/sluicegate
    install -D -m 0644 ${S}/docs/completions/_sluicegate ${D}${datadir}/zsh/site-functions/_sluicegate
    install -D -m 0644 ${S}/docs/completions/sluicegate.fish ${D}${datadir}/fish/vendor_completions.d/sluicegate.fish
    install -d ${D}${datadir}/sluicegate/profiles
    install -m 0644 ${S}/config/profiles/*.toml ${D}${datadir}/sluicegate/profiles/
    install -d ${D}${docdir}/sluicegate/examples
    install -m 0644 ${S}/config/examples/*.toml ${D}${docdir}/sluicegate/examples/
    install -d ${D}${docdir}/sluicegate/drop-ins
    install -m 0644 ${S}/systemd/drop-ins/*.conf ${D}${docdir}/sluicegate/drop-ins/

    for config in ${SLUICEGATE_CONFIG}; do
        install -D -m 0644 ${UNPACKDIR}/$config ${D}${nonarch_libdir}/sluicegate/conf.d/$config
    done
    for name in ${SLUICEGATE_DROP_INS}; do
        for unit in $(sed -n 's/^# Units: //p' ${S}/systemd/drop-ins/$name.conf); do
            install -D -m 0644 ${S}/systemd/drop-ins/$name.conf ${D}${systemd_system_unitdir}/$unit.service.d/$name.conf
        done
    done
}

do_install_ptest() {
    install -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/examples/demo ${D}${PTEST_PATH}/
    install -m 0755 ${S}/tests/demo-check ${D}${PTEST_PATH}/
    unit_tests=$(sed -n 's/.*"name":"sluicegate".*"executable":"\([^"]*\)".*/\1/p' ${B}/unit-tests.json)
    install -m 0755 $unit_tests ${D}${PTEST_PATH}/unit-tests
}

SYSTEMD_SERVICE:${PN} = "sluicegate.service"

USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system gpio; --system dialout"
USERADD_PARAM:${PN} = "--system --user-group --no-create-home --home-dir ${localstatedir}/lib/sluicegate \
    --shell /sbin/nologin --comment 'Sluicegate IoT gateway' sluicegate"

PACKAGE_BEFORE_PN += "${PN}-zsh-completion ${PN}-fish-completion"
FILES:${PN}-zsh-completion = "${datadir}/zsh"
FILES:${PN}-fish-completion = "${datadir}/fish"
FILES:${PN} += "\
    ${systemd_system_unitdir} \
    ${nonarch_libdir}/sluicegate \
    ${nonarch_libdir}/systemd/catalog/sluicegate.catalog \
    ${nonarch_libdir}/tmpfiles.d/sluicegate.conf \
    ${nonarch_base_libdir}/udev/rules.d/70-sluicegate.rules \
"
CONFFILES:${PN} = "${sysconfdir}/sluicegate/sluicegate.toml"

# The system's roots, where the config names no CA of its own.
RRECOMMENDS:${PN} += "ca-certificates"
