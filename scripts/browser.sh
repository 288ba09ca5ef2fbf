#!/bin/sh
# Installs what the tests need beyond Python, where that is allowed without asking:
# Chromium and an emoji font, by apt-get. Elsewhere it says what will be skipped.
set -u

has_browser() {
    for name in chromium chromium-browser; do
        command -v "$name" >/dev/null 2>&1 && return
    done
    return 1
}

has_emoji() {
    for folder in /usr/share/fonts /usr/local/share/fonts "$HOME/.fonts" "$HOME/.local/share/fonts"
    do
        [ -d "$folder" ] && [ -n "$(find -L "$folder" -name NotoColorEmoji.ttf -print -quit)" ] \
            && return
    done
    return 1
}

missing=''
has_browser || missing="$missing chromium"
has_emoji || missing="$missing fonts-noto-color-emoji"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
    as_root=env
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root='sudo env'
else
    as_root=''
fi

if [ -n "$as_root" ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing for the tests, by apt-get:$missing."
    log=$(mktemp)
    # shellcheck disable=SC2086  # both are lists of words
    if ! { $as_root DEBIAN_FRONTEND=noninteractive apt-get -qq update \
        && $as_root DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes \
            --no-install-recommends -o DPkg::Lock::Timeout=120 $missing; } >"$log" 2>&1 </dev/null
    then
        tail -n 5 "$log"
    fi
    rm -f "$log"
fi

has_browser || echo "Chromium is not installed, and could not be installed without asking: the tests" \
    "marked 'browser' are skipped. On Debian and Ubuntu: sudo apt-get install chromium."
has_emoji || echo "The font Noto Color Emoji is not installed: the tests that draw emoji are skipped." \
    "On Debian and Ubuntu: sudo apt-get install fonts-noto-color-emoji."
exit 0
