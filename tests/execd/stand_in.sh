#!/bin/sh
# A stand-in for execd, the daemon of a sandbox, for images whose shell is BusyBox. What it keeps to; the tests in
# test_execd_kept.py hold the real one to the same where it is at hand:
#
# - It listens on 44772 and keeps connections. GET /ping answers 200 with no body.
# - POST /command runs "command" by a shell and answers an event stream: bare one-line JSON events, each with an empty
#   line and a chunk of its own; init, stdout, then execution_complete or error, whose evalue is the exit code.
# - The stream stays open for a second after its last event.
# - Now and then (here: every second stream of a connection) a ping event follows behind the end of a stream, on the same
#   connection: bytes that belong to no answer.
# - /proxy/PORT/… goes to PORT on loopback, so that what listens sees a loopback peer; nothing there is a 502.
# - A short stream through its own /proxy/44772 ends early now and then (3 of 100 were seen; here the 20th and every
#   20th after it), cleanly: the closing chunk comes, events are missing.
#
# It takes no token and knows no files, sessions, code or background commands.
port=44772
count=/tmp/.execd-streams

serve_connection() {
    streams=0
    while read -r method path version; do
        length=0 head='' behind_itself=
        while read -r line; do
            line=${line%"$cr"}
            [ -n "$line" ] || break
            name=$(printf %s "${line%%:*}" | tr A-Z a-z)
            case $name in
                content-length) length=${line#*: } ;;
                behind-itself) behind_itself=yes ;;
                connection) continue ;;
            esac
            head="$head$line$crlf"
        done
        case $path in
            /ping*) answer '200 OK' '' ;;
            /command*) stream "$(head -c "$length")" ;;
            /proxy/*) forward; return ;;
            *) answer '404 Not Found' '404 page not found' ;;
        esac
    done
}

answer() {
    printf 'HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s' "$1" "${#2}" "$2"
}

event() {
    body="{\"type\":\"$1\",\"timestamp\":$(date +%s)000$2}$lf$lf"
    printf '%x\r\n%s\r\n' "${#body}" "$body"
}

stream() {
    command=$(printf %s "$1" | sed 's/.*"command" *: *"\(\([^"\\]\|\\.\)*\)".*/\1/')
    command=$(printf %s "$command" | sed "s/\\\\\\\\/$mark/g; s/\\\\n/\\n/g; s/\\\\\"/\"/g; s/$mark/\\\\/g")
    printf 'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n'
    event init ',"text":"0123456789abcdef0123456789abcdef"'
    total=$(cat $count 2>/dev/null || echo 0)
    echo $((total + 1)) >$count
    if [ -n "$behind_itself" ] && [ $((total % 20)) = 19 ]; then
        printf '0\r\n\r\n'
        return
    fi
    sh -c "$command" </dev/null 2>/dev/null >/tmp/.execd-out.$$
    code=$?
    sed 's/[\\"]/\\&/g' </tmp/.execd-out.$$ | while IFS= read -r line; do event stdout ",\"text\":\"$line\""; done
    rm -f /tmp/.execd-out.$$
    if [ $code = 0 ]; then
        event execution_complete ',"execution_time":1'
    else
        event error ",\"error\":{\"ename\":\"CommandExecError\",\"evalue\":\"$code\",\"traceback\":[\"exit status $code\"]}"
    fi
    sleep 1
    printf '0\r\n\r\n'
    streams=$((streams + 1))
    [ $((streams % 2)) = 1 ] || event ping ',"text":"pong"'
}

forward() {
    target=${path#/proxy/}
    to=${target%%/*}
    case $target in */*) rest=/${target#*/} ;; *) rest=/ ;; esac
    [ "$to" != $port ] || head="${head}Behind-Itself: yes$crlf"
    { printf '%s %s HTTP/1.1\r\n%sConnection: close\r\n\r\n' "$method" "$rest" "$head"; head -c "$length"; } |
        { nc 127.0.0.1 "$to" 2>/dev/null || answer '502 Bad Gateway' "port $to does not answer"; } |
        sed "1a Connection: close$cr"
}

cr=$(printf '\r')
mark=$(printf '\001')
crlf=$(printf '\r\nx')
crlf=${crlf%x}
lf='
'
if [ "$1" = connection ]; then
    serve_connection
else
    exec nc -ll -p $port -e "$0" connection
fi
