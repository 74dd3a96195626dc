# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_sluicegate_global_optspecs
    string join \n config= instance= log= h/help V/version
end

function __fish_sluicegate_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_sluicegate_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_sluicegate_using_subcommand
    set -l cmd (__fish_sluicegate_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c sluicegate -n "__fish_sluicegate_needs_command" -l config -d 'Read this config file instead of the standard places' -r -F
complete -c sluicegate -n "__fish_sluicegate_needs_command" -l instance -d 'The gateway that sluicegate@NAME.service runs: with /etc/sluicegate/NAME.toml and a state of its own' -r
complete -c sluicegate -n "__fish_sluicegate_needs_command" -l log -d 'How much is logged: error, warn, info, debug or trace' -r
complete -c sluicegate -n "__fish_sluicegate_needs_command" -s h -l help -d 'Print help'
complete -c sluicegate -n "__fish_sluicegate_needs_command" -s V -l version -d 'Print version'
complete -c sluicegate -n "__fish_sluicegate_needs_command" -f -a "run" -d 'Run the gateway'
complete -c sluicegate -n "__fish_sluicegate_needs_command" -f -a "check" -d 'Check the config, and what it names'
complete -c sluicegate -n "__fish_sluicegate_needs_command" -f -a "discover" -d 'Show what this board has, as config to paste: GPIO lines, serial ports, sensors'
complete -c sluicegate -n "__fish_sluicegate_needs_command" -f -a "try" -d 'Show what a device would publish, live'
complete -c sluicegate -n "__fish_sluicegate_needs_command" -f -a "record" -d 'Record what goes between a device and the running gateway, for `try --from`: a line each, until Ctrl-C'
complete -c sluicegate -n "__fish_sluicegate_needs_command" -f -a "decode" -d 'Show how a frame of a serial device, or frames of a Modbus slave, are read, step by step, and where it fails. Needs the feature `desk`, which programs built for boards do not have'
complete -c sluicegate -n "__fish_sluicegate_needs_command" -f -a "status" -d 'Ask the running gateway how it is'
complete -c sluicegate -n "__fish_sluicegate_needs_command" -f -a "reload" -d 'Make the running gateway read its config again, and take over what changed'
complete -c sluicegate -n "__fish_sluicegate_needs_command" -f -a "queue" -d 'Show what waits for the broker, or print it'
complete -c sluicegate -n "__fish_sluicegate_needs_command" -f -a "list-kinds" -d 'List the kinds of devices'
complete -c sluicegate -n "__fish_sluicegate_needs_command" -f -a "print-config" -d 'Print the config as it is understood, with all layers and defaults'
complete -c sluicegate -n "__fish_sluicegate_needs_command" -f -a "watch-clock" -d 'What sluicegate-clock.service runs: wait until a time service has set the clock, and tell the gateway'
complete -c sluicegate -n "__fish_sluicegate_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand run" -l config -d 'Read this config file instead of the standard places' -r -F
complete -c sluicegate -n "__fish_sluicegate_using_subcommand run" -l instance -d 'The gateway that sluicegate@NAME.service runs: with /etc/sluicegate/NAME.toml and a state of its own' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand run" -l log -d 'How much is logged: error, warn, info, debug or trace' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand run" -s h -l help -d 'Print help'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand run" -s V -l version -d 'Print version'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand check" -l config -d 'Read this config file instead of the standard places' -r -F
complete -c sluicegate -n "__fish_sluicegate_using_subcommand check" -l instance -d 'The gateway that sluicegate@NAME.service runs: with /etc/sluicegate/NAME.toml and a state of its own' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand check" -l log -d 'How much is logged: error, warn, info, debug or trace' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand check" -l devices -d 'Also try to open the devices; outputs are left alone'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand check" -l broker -d 'Also connect to the broker, and prove the rights to publish and subscribe'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand check" -s h -l help -d 'Print help'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand check" -s V -l version -d 'Print version'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand discover" -l modbus -d 'Instead, ask on this serial port, or of this server (HOST:PORT), which Modbus units answer; writes nothing' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand discover" -l units -d 'Which units are asked' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand discover" -l baud-rates -d 'At which rates, on a serial port' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand discover" -l parities -d 'With which parities, on a serial port: none, even, odd' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand discover" -l timeout -d 'How long each has to answer' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand discover" -l config -d 'Read this config file instead of the standard places' -r -F
complete -c sluicegate -n "__fish_sluicegate_using_subcommand discover" -l instance -d 'The gateway that sluicegate@NAME.service runs: with /etc/sluicegate/NAME.toml and a state of its own' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand discover" -l log -d 'How much is logged: error, warn, info, debug or trace' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand discover" -s h -l help -d 'Print help'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand discover" -s V -l version -d 'Print version'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand try" -l from -d 'Instead, play this recording to its driver; no device is touched. Needs the feature `desk`, which programs built for boards do not have' -r -F
complete -c sluicegate -n "__fish_sluicegate_using_subcommand try" -l config -d 'Read this config file instead of the standard places' -r -F
complete -c sluicegate -n "__fish_sluicegate_using_subcommand try" -l instance -d 'The gateway that sluicegate@NAME.service runs: with /etc/sluicegate/NAME.toml and a state of its own' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand try" -l log -d 'How much is logged: error, warn, info, debug or trace' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand try" -s h -l help -d 'Print help'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand try" -s V -l version -d 'Print version'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand record" -l for -d 'End by itself after this time' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand record" -l config -d 'Read this config file instead of the standard places' -r -F
complete -c sluicegate -n "__fish_sluicegate_using_subcommand record" -l instance -d 'The gateway that sluicegate@NAME.service runs: with /etc/sluicegate/NAME.toml and a state of its own' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand record" -l log -d 'How much is logged: error, warn, info, debug or trace' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand record" -s h -l help -d 'Print help'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand record" -s V -l version -d 'Print version'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand decode" -l config -d 'Read this config file instead of the standard places' -r -F
complete -c sluicegate -n "__fish_sluicegate_using_subcommand decode" -l instance -d 'The gateway that sluicegate@NAME.service runs: with /etc/sluicegate/NAME.toml and a state of its own' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand decode" -l log -d 'How much is logged: error, warn, info, debug or trace' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand decode" -s h -l help -d 'Print help'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand decode" -s V -l version -d 'Print version'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand status" -l config -d 'Read this config file instead of the standard places' -r -F
complete -c sluicegate -n "__fish_sluicegate_using_subcommand status" -l instance -d 'The gateway that sluicegate@NAME.service runs: with /etc/sluicegate/NAME.toml and a state of its own' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand status" -l log -d 'How much is logged: error, warn, info, debug or trace' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand status" -s h -l help -d 'Print help'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand status" -s V -l version -d 'Print version'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand reload" -l config -d 'Read this config file instead of the standard places' -r -F
complete -c sluicegate -n "__fish_sluicegate_using_subcommand reload" -l instance -d 'The gateway that sluicegate@NAME.service runs: with /etc/sluicegate/NAME.toml and a state of its own' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand reload" -l log -d 'How much is logged: error, warn, info, debug or trace' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand reload" -s h -l help -d 'Print help'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand reload" -s V -l version -d 'Print version'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand queue" -l dump -d 'Print the records that wait, a line of JSON each: of this lane, or of all' -r -f -a "all\t''
alarm\t''
outcome\t''
telemetry\t''"
complete -c sluicegate -n "__fish_sluicegate_using_subcommand queue" -l config -d 'Read this config file instead of the standard places' -r -F
complete -c sluicegate -n "__fish_sluicegate_using_subcommand queue" -l instance -d 'The gateway that sluicegate@NAME.service runs: with /etc/sluicegate/NAME.toml and a state of its own' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand queue" -l log -d 'How much is logged: error, warn, info, debug or trace' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand queue" -s h -l help -d 'Print help'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand queue" -s V -l version -d 'Print version'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand list-kinds" -l config -d 'Read this config file instead of the standard places' -r -F
complete -c sluicegate -n "__fish_sluicegate_using_subcommand list-kinds" -l instance -d 'The gateway that sluicegate@NAME.service runs: with /etc/sluicegate/NAME.toml and a state of its own' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand list-kinds" -l log -d 'How much is logged: error, warn, info, debug or trace' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand list-kinds" -s h -l help -d 'Print help'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand list-kinds" -s V -l version -d 'Print version'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand print-config" -l config -d 'Read this config file instead of the standard places' -r -F
complete -c sluicegate -n "__fish_sluicegate_using_subcommand print-config" -l instance -d 'The gateway that sluicegate@NAME.service runs: with /etc/sluicegate/NAME.toml and a state of its own' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand print-config" -l log -d 'How much is logged: error, warn, info, debug or trace' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand print-config" -s h -l help -d 'Print help'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand print-config" -s V -l version -d 'Print version'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand watch-clock" -l config -d 'Read this config file instead of the standard places' -r -F
complete -c sluicegate -n "__fish_sluicegate_using_subcommand watch-clock" -l instance -d 'The gateway that sluicegate@NAME.service runs: with /etc/sluicegate/NAME.toml and a state of its own' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand watch-clock" -l log -d 'How much is logged: error, warn, info, debug or trace' -r
complete -c sluicegate -n "__fish_sluicegate_using_subcommand watch-clock" -s h -l help -d 'Print help'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand watch-clock" -s V -l version -d 'Print version'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand help; and not __fish_seen_subcommand_from run check discover try record decode status reload queue list-kinds print-config watch-clock help" -f -a "run" -d 'Run the gateway'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand help; and not __fish_seen_subcommand_from run check discover try record decode status reload queue list-kinds print-config watch-clock help" -f -a "check" -d 'Check the config, and what it names'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand help; and not __fish_seen_subcommand_from run check discover try record decode status reload queue list-kinds print-config watch-clock help" -f -a "discover" -d 'Show what this board has, as config to paste: GPIO lines, serial ports, sensors'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand help; and not __fish_seen_subcommand_from run check discover try record decode status reload queue list-kinds print-config watch-clock help" -f -a "try" -d 'Show what a device would publish, live'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand help; and not __fish_seen_subcommand_from run check discover try record decode status reload queue list-kinds print-config watch-clock help" -f -a "record" -d 'Record what goes between a device and the running gateway, for `try --from`: a line each, until Ctrl-C'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand help; and not __fish_seen_subcommand_from run check discover try record decode status reload queue list-kinds print-config watch-clock help" -f -a "decode" -d 'Show how a frame of a serial device, or frames of a Modbus slave, are read, step by step, and where it fails. Needs the feature `desk`, which programs built for boards do not have'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand help; and not __fish_seen_subcommand_from run check discover try record decode status reload queue list-kinds print-config watch-clock help" -f -a "status" -d 'Ask the running gateway how it is'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand help; and not __fish_seen_subcommand_from run check discover try record decode status reload queue list-kinds print-config watch-clock help" -f -a "reload" -d 'Make the running gateway read its config again, and take over what changed'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand help; and not __fish_seen_subcommand_from run check discover try record decode status reload queue list-kinds print-config watch-clock help" -f -a "queue" -d 'Show what waits for the broker, or print it'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand help; and not __fish_seen_subcommand_from run check discover try record decode status reload queue list-kinds print-config watch-clock help" -f -a "list-kinds" -d 'List the kinds of devices'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand help; and not __fish_seen_subcommand_from run check discover try record decode status reload queue list-kinds print-config watch-clock help" -f -a "print-config" -d 'Print the config as it is understood, with all layers and defaults'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand help; and not __fish_seen_subcommand_from run check discover try record decode status reload queue list-kinds print-config watch-clock help" -f -a "watch-clock" -d 'What sluicegate-clock.service runs: wait until a time service has set the clock, and tell the gateway'
complete -c sluicegate -n "__fish_sluicegate_using_subcommand help; and not __fish_seen_subcommand_from run check discover try record decode status reload queue list-kinds print-config watch-clock help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
