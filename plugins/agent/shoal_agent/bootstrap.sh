#!/bin/sh
# Starts the agent beside a sandbox's command (docs/wire/execd.md section 13). Plain sh: busybox, dash, bash.
#
# As process 1 it stays, forwards signals, reaps, and ends with the command's status. Under an init it leaves its place
# to the command. The agent is started again should it die; it never takes the sandbox with it.

here=${0%/*}
EXECD=${EXECD:-$here/execd}
EXECD_ENVS=${EXECD_ENVS:-/opt/opensandbox/.env}
certificate=/opt/opensandbox/mitmproxy-ca-cert.pem

say() { echo "bootstrap: $*" >&2; }

is_true() {
    case $1 in 1 | [tT][rR][uU][eE] | [yY][eE][sS] | [oO][nN]) return 0 ;; esac
    return 1
}

has() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u 2>/dev/null)" = 0 ]; then "$@"; elif has sudo; then sudo -n "$@"; else return 1; fi
}

pause() { sleep 0.1 2>/dev/null || sleep 1; }

# --- The certificate of a proxy that reads TLS -------------------------------------------------------------------------

await_certificate() {
    seconds=0
    while [ ! -s "$certificate" ]; do
        [ "$seconds" -lt 300 ] || { say "no certificate at $certificate after 300 seconds"; exit 1; }
        sleep 1
        seconds=$((seconds + 1))
    done
}

trust_in_system() {
    for pair in /usr/local/share/ca-certificates:update-ca-certificates \
        /etc/pki/ca-trust/source/anchors:update-ca-trust \
        /etc/ca-certificates/trust-source/anchors:update-ca-trust; do
        anchors=${pair%:*}
        update=${pair#*:}
        has "$update" || continue
        as_root mkdir -p "$anchors" && as_root cp "$certificate" "$anchors/opensandbox-mitmproxy-ca.crt" &&
            as_root "$update" >/dev/null 2>&1 && return 0
    done
    return 1
}

merge_bundles() {
    merged=/opt/opensandbox/merged-ca-certificates.pem
    for system in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem \
        /etc/ssl/cert.pem /dev/null; do
        [ -r "$system" ] && break
    done
    (umask 022 && cat "$system" "$certificate" >"$merged") 2>/dev/null && return
    merged=${TMPDIR:-/tmp}/merged-ca-certificates.pem
    (umask 022 && cat "$system" "$certificate" >"$merged") || merged=$certificate
}

trust_elsewhere() {
    nss=${HOME:-/root}/.pki/nssdb
    if has certutil; then
        [ -d "$nss" ] || { mkdir -p "$nss" && certutil -d "sql:$nss" -N --empty-password; }
        certutil -d "sql:$nss" -A -t C,, -n opensandbox-mitmproxy -i "$certificate"
    fi
    if has keytool; then
        as_root keytool -importcert -noprompt -trustcacerts -cacerts -storepass changeit \
            -alias opensandbox-mitmproxy -file "$certificate"
    fi
} >/dev/null 2>&1

trust_certificate() {
    await_certificate
    merge_bundles
    trust_in_system || say "the system's store does not have the proxy's certificate; variables name it instead"
    trust_elsewhere
    export NODE_EXTRA_CA_CERTS="$certificate" REQUESTS_CA_BUNDLE="$merged" SSL_CERT_FILE="$merged"
}

# --- The agent --------------------------------------------------------------------------------------------------------

# Runs the agent again whenever it fails, less often the more often it does; ends with it where it ends in order.
keep_agent() {
    failures=0
    ending=
    agent=
    trap 'ending=1; [ -z "$agent" ] || kill -TERM "$agent" 2>/dev/null' TERM
    while [ -z "$ending" ]; do
        "$EXECD" "$@" &
        agent=$!
        [ -z "$ending" ] || kill -TERM "$agent" 2>/dev/null
        wait_for "$agent"
        [ "$status" != 0 ] && [ -z "$ending" ] || break
        failures=$((failures + 1))
        say "the agent ended with status $status, it is started again"
        set -- # what belongs to the sandbox's start alone
        if [ "$failures" -gt 3 ]; then sleep 10; elif [ "$failures" -gt 1 ]; then sleep 1; fi
    done
}

# The end of a child, whatever signals come meanwhile: its status in $status.
wait_for() {
    while :; do
        wait "$1" 2>/dev/null # or some shells tell of a signal here
        status=$?
        [ "$status" -gt 128 ] && kill -0 "$1" 2>/dev/null || return 0
    done
}

# A hook that must have run before the command: the agent writes "running SECONDS", then "done 0" or "done 1".
await_hooks() {
    ticks=0
    limit=100
    while :; do
        word= number=
        while read -r a b; do word=$a number=$b; done <"$status_file"
        case $word in
        done)
            rm -f "$status_file"
            [ "$number" = 0 ] && return
            say "the sandbox's preStart hook failed"
            exit "$number"
            ;;
        running) limit=$(((number + 10) * 10)) ;;
        esac
        [ "$ticks" -lt "$limit" ] || { say "the agent did not tell that the preStart hook is done"; exit 1; }
        ticks=$((ticks + 1))
        pause
    done
}

start_agent() {
    set --
    if [ -n "${OPENSANDBOX_LIFECYCLE:-}${EXECD_LIFECYCLE_CONFIG:-}" ] || [ -e "${HOME:-/root}/.execd/lifecycle.toml" ]; then
        status_file=${TMPDIR:-/tmp}/.execd-lifecycle-$$
        : >"$status_file" || exit 1
        set -- --lifecycle-startup-status-file "$status_file"
    fi
    if [ $$ = 1 ]; then
        keep_agent "$@" </dev/null &
        keeper=$!
    else
        # In between, so that it is nobody's child whom the command would have to wait for.
        (keep_agent "$@" </dev/null &)
    fi
    [ $# = 0 ] || await_hooks
}

# --- The command ------------------------------------------------------------------------------------------------------

hide() { unset EXECD_ACCESS_TOKEN EXECD_ACCESS_TOKEN_SHA256 OPENSANDBOX_LIFECYCLE EXECD_LIFECYCLE_CONFIG EXECD_RUNTIME_INIT; }

# A shell starts what it does not wait for with SIGINT and SIGQUIT ignored, and cannot undo it; the interpreter can.
defaults='import os, signal, sys
for each in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(each, signal.SIG_DFL)
try:
    os.execvp(sys.argv[1], sys.argv[1:])
except OSError as error:
    print(f"bootstrap: {sys.argv[1]}: {error.strerror}", file=sys.stderr)
    sys.exit(126 if isinstance(error, PermissionError) else 127)'

pass() { if [ -n "$child" ]; then kill -"$1" "$child" 2>/dev/null; else early="$early $1"; fi; }

run_as_first() {
    child= early=
    trap 'pass TERM' TERM
    trap 'pass INT' INT
    trap 'pass HUP' HUP
    python=${EXECD%/*}/agent/python
    if [ -x "$python" ]; then
        (hide; exec "$python" -ISBXutf8 -c "$defaults" "$@") <&3 3<&- &
    else
        (hide; exec "$@") <&3 3<&- &
    fi
    child=$!
    for signal in $early; do pass "$signal"; done
    wait_for "$child"
    ended=$status
    kill -TERM "$keeper" 2>/dev/null
    tries=0
    while kill -0 "$keeper" 2>/dev/null && [ "$tries" -lt 20 ]; do
        pause
        tries=$((tries + 1))
    done
    exit "$ended"
}

if is_true "${OPENSANDBOX_EGRESS_MITMPROXY_TRANSPARENT:-}"; then trust_certificate; fi

make_envs() { { [ -d "${1%/*}" ] || mkdir -p "${1%/*}"; } && : >>"$1"; } 2>/dev/null

# Subshells, for some shells end with a redirection that fails.
if ! (make_envs "$EXECD_ENVS"); then
    say "$EXECD_ENVS cannot be written, the variables are in ${TMPDIR:-/tmp}"
    EXECD_ENVS=${TMPDIR:-/tmp}/.opensandbox-env-$(id -u 2>/dev/null)
    (make_envs "$EXECD_ENVS") || say "$EXECD_ENVS cannot be written either: variables that are set later are lost"
fi
export EXECD_ENVS

if [ -n "${EXECD_BOOTSTRAP_PRE_SCRIPT:-}" ]; then
    . "$EXECD_BOOTSTRAP_PRE_SCRIPT" || { status=$?; say "$EXECD_BOOTSTRAP_PRE_SCRIPT failed"; exit "$status"; }
fi

shell() { echo "${BOOTSTRAP_SHELL:-$(command -v bash || echo /bin/sh)}"; }
if [ -n "${BOOTSTRAP_CMD:-}" ]; then
    set -- "$(shell)" -c "$BOOTSTRAP_CMD"
elif [ "${1:-}" = -c ]; then
    set -- "$(shell)" "$@"
elif [ $# = 0 ]; then
    set -- "$(shell)"
fi

if is_true "${EXECD_INIT:-}"; then exec "$EXECD" --init -- "$@"; fi

exec 3<&0
start_agent
if [ $$ = 1 ]; then run_as_first "$@"; fi
hide
exec 3<&-
exec "$@"
