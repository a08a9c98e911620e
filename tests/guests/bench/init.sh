#!/bin/sh
# What /init of the measured roots becomes: the words of the kernel's command line are the phases to run.
export PATH=/usr/bin:/usr/sbin HOME=/root TERM=vt100
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
echo 1 > /proc/sys/kernel/printk
for word; do
    case $word in
    nokaslr|boot) ;;
    symbols)
        grep -A 1 -E ' (plat_time_init|CMOS_READ|__r4k_wait|arch_cpu_idle|do_idle|__delay)$' /proc/kallsyms |
            sed 's/^/symbol: /'
        echo "bench: symbols end" ;;
    script|compile)
        cd /etc/bench
        gauge run "$word" /bin/sh "/etc/bench/$word" ;;
    user) gauge user 64 ;;
    *) echo "bench: $word is no phase" ;;
    esac
done
echo "bench: all phases have ended"
reboot -f
