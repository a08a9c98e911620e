#!/bin/sh
# Processes that come and go: each command is a program of its own, by its path, so that the shell does none itself.
i=0
while [ "$i" -lt 20 ]; do
    /bin/echo "line $i of many words" | /bin/sed 's/many/few/' | /bin/grep -c few > /tmp/found
    /bin/expr "$i" + 1 > /tmp/next
    read -r i < /tmp/next
done
sum=$(/bin/seq 1 500 | /bin/sort -rn | /bin/awk '{ sum += $1 } END { print sum }')
files=$(/bin/find /etc/bench -type f | /bin/wc -l)
[ "$i" = 20 ] && [ "$(/bin/cat /tmp/found)" = 1 ] && [ "$sum" = 125250 ] && [ "$files" -gt 0 ]
