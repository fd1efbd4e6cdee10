/*
 * The only program of the lab's guest: process 1 of a QEMU guest, or of an LXC container.
 *
 * It takes its name and addresses from the kernel command line (in a container: from its
 * arguments), and answers so that a test can see which guest was reached, and from which address:
 *
 *   lab.name=web1 lab.address=10.5.5.11/24,fd00:5::11/64 lab.gateway=10.5.5.254,fd00:5::254
 *   lab.address=dhcp       one IPv4 lease, never renewed
 *   lab.sctp               also SCTP, which is one more module to load
 *
 *   TCP 22 and 80          "web1 tcp 10.5.5.254:40000\n", then closes
 *   TCP 7                  sends back whatever comes
 *   TCP 9                  "poweroff", "reboot", "panic"
 *   UDP 7, 53, 123         "web1 udp 10.5.5.254:40000 PAYLOAD"
 *   SCTP 7, 80             "web1 sctp 10.5.5.254:40000 PAYLOAD"
 *
 * The ACPI power button powers it off; in a container, SIGTERM does.
 *
 * Where the image has a program /services, that serves instead, called with the guest's name.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

static void load_modules(const char *const *names)
{
	for (; *names; names++) {
		char path[96];
		snprintf(path, sizeof path, "/modules/%s.ko", *names);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)
			say("init: module %s: %s\n", *names, strerror(errno));
		close(fd);
	}
}

void power(int command)
{
	if (is_container)
		exit(0);
	/*
	 * Else the kernel may give the card, which it has reset already, one more order (to hear a
	 * multicast group) and wait for ever, in place of going down.
	 */
	network_down();
	reboot(command);
}

void control(const char *order)
{
	if (!strncmp(order, "poweroff", 8))
		power(RB_POWER_OFF);
	else if (!strncmp(order, "reboot", 6))
		power(RB_AUTOBOOT);
	else if (!strncmp(order, "panic", 5))
		write_text("/proc/sysrq-trigger", "c");
}

static void watch_power_button(void)
{
	static const char *const button_modules[] = {"evdev", "button", NULL};
	load_modules(button_modules);
	for (int i = 0; i < 8; i++) {
		char path[32];
		snprintf(path, sizeof path, "/dev/input/event%d", i);
		int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0)
			watch(fd, POWER_BUTTON);
	}
}

static void run_services(const char *program)
{
	if (fork() == 0) {
		signal(SIGPIPE, SIG_DFL);
		execl(program, program, guest_name, NULL);
		say("init: %s: %s\n", program, strerror(errno));
		_exit(1);
	}
	for (;;)
		if (wait(NULL) < 0)
			pause();
}

static void leave(int signal_number)
{
	(void)signal_number;
	_exit(0);
}

static void prepare_machine(void)
{
	static const char *const network_modules[] = {
		"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev",
		"virtio_pci", "failover", "net_failover", "virtio_net", "xen-netfront", NULL};
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	load_modules(network_modules);
	/* What the kernel runs when Xen's toolstack asks it to shut down (xl shutdown). */
	write_text("/proc/sys/kernel/poweroff_cmd", "/init poweroff");
}

int main(int argc, char **argv)
{
	static const char *const panic_modules[] = {"pvpanic", "pvpanic-mmio", "pvpanic-pci", NULL};
	static const char *const sctp_modules[] = {
		"crc32c_generic", "libcrc32c", "udp_tunnel", "ip6_udp_tunnel", "sctp", NULL};
	is_container = argc > 1 && !strncmp(argv[1], "lab.", 4);
	if (getpid() != 1) {
		control(argc > 1 ? argv[1] : "");
		return 0;
	}
	signal(SIGPIPE, SIG_IGN);
	if (is_container)
		signal(SIGTERM, leave);
	else
		prepare_machine();
	load_settings(argc, argv);
	read_setting("lab.name=", guest_name, sizeof guest_name);
	configure_network();
	if (!access("/services", X_OK))
		run_services("/services");
	serve(SOCK_STREAM, 0, 80, TCP_ANSWER);
	serve(SOCK_STREAM, 0, 22, TCP_ANSWER);
	serve(SOCK_STREAM, 0, 7, TCP_ECHO);
	serve(SOCK_STREAM, 0, 9, TCP_CONTROL);
	serve(SOCK_DGRAM, 0, 7, DATAGRAM);
	serve(SOCK_DGRAM, 0, 53, DATAGRAM);
	serve(SOCK_DGRAM, 0, 123, DATAGRAM);
	if (!is_container) {
		load_modules(panic_modules);
		watch_power_button();
	}
	if (has_setting("lab.sctp")) {
		load_modules(sctp_modules);
		serve(SOCK_SEQPACKET, IPPROTO_SCTP, 7, SCTP_MESSAGE);
		serve(SOCK_SEQPACKET, IPPROTO_SCTP, 80, SCTP_MESSAGE);
	}
	serve_forever();
}
