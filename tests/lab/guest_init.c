/*
 * The only program of the lab's guest: process 1 of a QEMU guest, or of an LXC container.
 *
 * It takes its name and addresses from the kernel command line (in a container: from its
 * arguments), and answers so that a test can see which guest was reached, and from which address:
 *
 *   lab.name=web1 lab.address=10.5.5.11/24,fd00:5::11/64 lab.gateway=10.5.5.254,fd00:5::254
 *   lab.address=dhcp       one IPv4 lease, never renewed
 *   lab.sctp               also SCTP (the module costs about a second under TCG)
 *
 *   TCP 22 and 80          "web1 tcp 10.5.5.254:40000\n", then closes
 *   TCP 7                  sends back whatever comes
 *   TCP 9                  "poweroff", "reboot", "panic"
 *   UDP 7, 53, 123         "web1 udp 10.5.5.254:40000 PAYLOAD"
 *   SCTP 7, 80             "web1 sctp 10.5.5.254:40000 PAYLOAD"
 *
 * The ACPI power button powers it off; in a container, SIGTERM does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DEVICE "eth0"
#define MAX_FDS 256

static char settings[4096];
static char guest_name[256] = "guest";
static int is_container;

static void say(const char *format, ...)
{
	char line[512];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	int fd = open(is_container ? "/dev/console" : "/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, line, length) < 0) { /* nobody to tell */ }
	close(fd);
}

/* ---- settings, modules ------------------------------------------------------------------- */

static int has_setting(const char *name)
{
	return strstr(settings, name) != NULL;
}

/* Copy the value of "name=value" out of the settings; an empty string when it is not there. */
static void read_setting(const char *name, char *value, size_t size)
{
	char *found = strstr(settings, name);
	value[0] = 0;
	if (!found)
		return;
	found += strlen(name);
	size_t length = strcspn(found, " \n");
	if (length >= size)
		length = size - 1;
	memcpy(value, found, length);
	value[length] = 0;
}

static void load_settings(int argc, char **argv)
{
	if (is_container) {
		for (int i = 1; i < argc; i++) {
			strncat(settings, argv[i], sizeof settings - strlen(settings) - 1);
			strncat(settings, " ", sizeof settings - strlen(settings) - 1);
		}
		return;
	}
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? 0 : read(fd, settings, sizeof settings - 1);
	settings[length > 0 ? length : 0] = 0;
	close(fd);
}

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

/* ---- addresses --------------------------------------------------------------------------- */

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0)
		say("init: %s: %s\n", path, strerror(errno));
	close(fd);
}

static void device_up(const char *device)
{
	struct ifreq request = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	strcpy(request.ifr_name, device);
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &request))
		say("init: %s up: %s\n", device, strerror(errno));
	close(fd);
}

static void set_address4(struct in_addr address, struct in_addr netmask)
{
	struct ifreq request = {0};
	struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	strcpy(request.ifr_name, DEVICE);
	in->sin_family = AF_INET;
	in->sin_addr = address;
	if (ioctl(fd, SIOCSIFADDR, &request))
		say("init: address: %s\n", strerror(errno));
	in->sin_addr = netmask;
	if (ioctl(fd, SIOCSIFNETMASK, &request))
		say("init: netmask: %s\n", strerror(errno));
	close(fd);
}

static void set_gateway4(struct in_addr gateway)
{
	struct rtentry route = {0};
	struct sockaddr_in *in = (struct sockaddr_in *)&route.rt_gateway;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	route.rt_dst.sa_family = route.rt_genmask.sa_family = AF_INET;
	in->sin_family = AF_INET;
	in->sin_addr = gateway;
	route.rt_flags = RTF_UP | RTF_GATEWAY;
	if (ioctl(fd, SIOCADDRT, &route))
		say("init: gateway: %s\n", strerror(errno));
	close(fd);
}

/* The kernel's own struct in6_ifreq; its header clashes with the C library's. */
struct address6_request {
	struct in6_addr address;
	uint32_t prefix_length;
	int device_index;
};

static void set_address6(struct in6_addr address, int prefix_length)
{
	struct address6_request request = {address, prefix_length, if_nametoindex(DEVICE)};
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (ioctl(fd, SIOCSIFADDR, &request))
		say("init: IPv6 address: %s\n", strerror(errno));
	close(fd);
}

static void set_gateway6(struct in6_addr gateway)
{
	struct in6_rtmsg route = {0};
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	route.rtmsg_gateway = gateway;
	route.rtmsg_flags = RTF_UP | RTF_GATEWAY;
	route.rtmsg_metric = 1;
	route.rtmsg_ifindex = if_nametoindex(DEVICE);
	if (ioctl(fd, SIOCADDRT, &route))
		say("init: IPv6 gateway: %s\n", strerror(errno));
	close(fd);
}

/* One "10.5.5.11/24" or "fd00:5::11/64". */
static void set_address(char *text)
{
	struct in_addr address4, netmask;
	struct in6_addr address6;
	char *slash = strchr(text, '/');
	int prefix_length = slash ? atoi(slash + 1) : -1;
	if (slash)
		*slash = 0;
	if (inet_pton(AF_INET, text, &address4) == 1) {
		netmask.s_addr = htonl(prefix_length > 0 ? ~0u << (32 - prefix_length) : ~0u);
		set_address4(address4, netmask);
	} else if (inet_pton(AF_INET6, text, &address6) == 1) {
		set_address6(address6, prefix_length > 0 ? prefix_length : 128);
	} else {
		say("init: not an address: %s\n", text);
	}
}

static void set_gateway(char *text)
{
	struct in_addr gateway4;
	struct in6_addr gateway6;
	if (inet_pton(AF_INET, text, &gateway4) == 1)
		set_gateway4(gateway4);
	else if (inet_pton(AF_INET6, text, &gateway6) == 1)
		set_gateway6(gateway6);
}

static void for_each_in_list(char *list, void (*action)(char *))
{
	char *rest = NULL;
	for (char *one = strtok_r(list, ",", &rest); one; one = strtok_r(NULL, ",", &rest))
		action(one);
}

/* ---- DHCP (RFC 2131), as little as gets one lease ---------------------------------------- */

enum { DISCOVER = 1, OFFER = 2, REQUEST = 3, ACK = 5 };

struct dhcp_message {
	uint8_t op, hardware_type, hardware_length, hops;
	uint32_t transaction;
	uint16_t seconds, flags;
	uint32_t client, yours, next_server, relay;
	uint8_t hardware[16], server_name[64], boot_file[128];
	uint32_t magic;
	uint8_t options[308];
} __attribute__((packed));

static const uint8_t *dhcp_option(const struct dhcp_message *message, int code)
{
	const uint8_t *at = message->options, *end = at + sizeof message->options;
	while (at + 1 < end && *at != 255) {
		if (*at == 0) {
			at++;
			continue;
		}
		if (*at == code)
			return at + 2;
		at += 2 + at[1];
	}
	return NULL;
}

static void dhcp_send(int fd, int type, const uint8_t *mac, uint32_t wanted, uint32_t server)
{
	struct dhcp_message message = {.op = 1, .hardware_type = 1, .hardware_length = 6};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(67)};
	uint8_t *option = message.options;
	message.transaction = htonl(0x6c616231);
	message.flags = htons(0x8000); /* answer by broadcast: we have no address to be sent to */
	message.magic = htonl(0x63825363);
	memcpy(message.hardware, mac, 6);
	*option++ = 53; *option++ = 1; *option++ = type;
	if (type == REQUEST) {
		*option++ = 50; *option++ = 4; memcpy(option, &wanted, 4); option += 4;
		*option++ = 54; *option++ = 4; memcpy(option, &server, 4); option += 4;
	}
	size_t name_length = strlen(guest_name) > 63 ? 63 : strlen(guest_name);
	*option++ = 12; *option++ = name_length;
	memcpy(option, guest_name, name_length); option += name_length;
	*option++ = 55; *option++ = 2; *option++ = 1; *option++ = 3;
	*option = 255;
	to.sin_addr.s_addr = htonl(INADDR_BROADCAST);
	if (sendto(fd, &message, sizeof message, 0, (struct sockaddr *)&to, sizeof to) < 0)
		say("init: dhcp: %s\n", strerror(errno));
}

static void dhcp_apply(const struct dhcp_message *ack)
{
	struct in_addr address = {ack->yours}, netmask = {htonl(0xffffff00)}, gateway;
	const uint8_t *option = dhcp_option(ack, 1);
	if (option)
		memcpy(&netmask, option, 4);
	set_address4(address, netmask);
	option = dhcp_option(ack, 3);
	if (option) {
		memcpy(&gateway, option, 4);
		set_gateway4(gateway);
	}
}

static int dhcp_socket(uint8_t *mac)
{
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(68)};
	struct timeval patience = {.tv_usec = 300000};
	struct ifreq request = {0};
	int on = 1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	strcpy(request.ifr_name, DEVICE);
	ioctl(fd, SIOCGIFHWADDR, &request);
	memcpy(mac, request.ifr_hwaddr.sa_data, 6);
	setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
	setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, DEVICE, sizeof DEVICE);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (bind(fd, (struct sockaddr *)&any, sizeof any))
		say("init: dhcp bind: %s\n", strerror(errno));
	return fd;
}

static void dhcp(void)
{
	uint8_t mac[6];
	uint32_t wanted = 0, server = 0;
	int fd = dhcp_socket(mac), state = DISCOVER;
	for (int attempt = 0; attempt < 100; attempt++) {
		struct dhcp_message answer = {0};
		dhcp_send(fd, state, mac, wanted, server);
		if (recv(fd, &answer, sizeof answer, 0) < 240 || memcmp(answer.hardware, mac, 6))
			continue;
		const uint8_t *type = dhcp_option(&answer, 53), *from = dhcp_option(&answer, 54);
		if (type && *type == OFFER && from) {
			wanted = answer.yours;
			memcpy(&server, from, 4);
			state = REQUEST;
		} else if (type && *type == ACK) {
			dhcp_apply(&answer);
			break;
		} else {
			state = DISCOVER;
		}
	}
	close(fd);
}

static void configure_network(void)
{
	char list[256];
	device_up("lo");
	for (int i = 0; i < 500 && !if_nametoindex(DEVICE); i++)
		usleep(10000);
	/* Duplicate address detection would keep an IPv6 address unusable for a second or more. */
	write_text("/proc/sys/net/ipv6/conf/" DEVICE "/accept_dad", "0");
	write_text("/proc/sys/net/ipv6/conf/" DEVICE "/accept_ra", "0");
	device_up(DEVICE);
	read_setting("lab.address=", list, sizeof list);
	if (!strcmp(list, "dhcp")) {
		dhcp();
		return;
	}
	for_each_in_list(list, set_address);
	read_setting("lab.gateway=", list, sizeof list);
	for_each_in_list(list, set_gateway);
}

/* ---- serving ----------------------------------------------------------------------------- */

enum role { TCP_ANSWER, TCP_ECHO, TCP_CONTROL, DATAGRAM, SCTP_MESSAGE, /* listening */
	    DRAIN, ECHO, CONTROL,					/* accepted */
	    POWER_BUTTON };

static struct pollfd watched[MAX_FDS];
static enum role roles[MAX_FDS];
static int watched_count;

static void watch(int fd, enum role role)
{
	if (fd < 0 || watched_count == MAX_FDS) {
		close(fd);
		return;
	}
	watched[watched_count] = (struct pollfd){.fd = fd, .events = POLLIN};
	roles[watched_count++] = role;
}

/* One socket for both families; an IPv4 peer shows as ::ffff:a.b.c.d. */
static void serve(int type, int protocol, int port, enum role role)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int on = 1, off = 0, fd = socket(AF_INET6, type | SOCK_CLOEXEC, protocol);
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any))
		say("init: port %d: %s\n", port, strerror(errno));
	if (role != DATAGRAM && listen(fd, 64))
		say("init: port %d: %s\n", port, strerror(errno));
	watch(fd, role);
}

static void format_peer(const struct sockaddr_in6 *peer, char *text, size_t size)
{
	char address[INET6_ADDRSTRLEN];
	int port = ntohs(peer->sin6_port);
	if (IN6_IS_ADDR_V4MAPPED(&peer->sin6_addr)) {
		inet_ntop(AF_INET, &peer->sin6_addr.s6_addr[12], address, sizeof address);
		snprintf(text, size, "%s:%d", address, port);
	} else {
		inet_ntop(AF_INET6, &peer->sin6_addr, address, sizeof address);
		snprintf(text, size, "[%s]:%d", address, port);
	}
}

static void power(int command)
{
	if (is_container)
		exit(0);
	reboot(command);
}

static void control(const char *order)
{
	if (!strncmp(order, "poweroff", 8))
		power(RB_POWER_OFF);
	else if (!strncmp(order, "reboot", 6))
		power(RB_AUTOBOOT);
	else if (!strncmp(order, "panic", 5))
		write_text("/proc/sysrq-trigger", "c");
}

static void accept_connection(int listener, enum role role)
{
	struct sockaddr_in6 peer;
	socklen_t size = sizeof peer;
	char peer_text[64], answer[400];
	int fd = accept4(listener, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	if (role == TCP_ECHO || role == TCP_CONTROL) {
		watch(fd, role == TCP_ECHO ? ECHO : CONTROL);
		return;
	}
	format_peer(&peer, peer_text, sizeof peer_text);
	int length = snprintf(answer, sizeof answer, "%s tcp %s\n", guest_name, peer_text);
	if (write(fd, answer, length) < 0) { /* the client has gone */ }
	/* Closing with unread input would reset the connection and could take the answer with it. */
	shutdown(fd, SHUT_WR);
	watch(fd, DRAIN);
}

/* UDP, and SCTP's one-to-many style, where an association comes and goes with its messages. */
static void answer_message(int fd, const char *protocol)
{
	static char payload[2048], answer[2600];
	struct sockaddr_in6 peer;
	socklen_t size = sizeof peer;
	char peer_text[64];
	ssize_t length = recvfrom(fd, payload, sizeof payload - 1, 0, (struct sockaddr *)&peer, &size);
	if (length < 0)
		return;
	payload[length] = 0;
	format_peer(&peer, peer_text, sizeof peer_text);
	int total = snprintf(answer, sizeof answer, "%s %s %s %s", guest_name, protocol, peer_text, payload);
	sendto(fd, answer, total, 0, (struct sockaddr *)&peer, size);
}

static void read_connection(int index)
{
	static char buffer[65536];
	int fd = watched[index].fd;
	ssize_t length = read(fd, buffer, sizeof buffer - 1);
	if (length <= 0) {
		close(fd);
		watched[index] = watched[--watched_count];
		roles[index] = roles[watched_count];
		return;
	}
	buffer[length] = 0;
	if (roles[index] == CONTROL)
		control(buffer);
	for (ssize_t sent = 0; roles[index] == ECHO && sent < length;) {
		ssize_t count = send(fd, buffer + sent, length - sent, MSG_NOSIGNAL);
		if (count < 0)
			break;
		sent += count;
	}
}

static void read_button(int fd)
{
	struct input_event event;
	while (read(fd, &event, sizeof event) == sizeof event)
		if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1)
			power(RB_POWER_OFF);
}

static void handle(int index)
{
	int fd = watched[index].fd;
	switch (roles[index]) {
	case TCP_ANSWER: case TCP_ECHO: case TCP_CONTROL:
		accept_connection(fd, roles[index]);
		break;
	case DATAGRAM:
		answer_message(fd, "udp");
		break;
	case SCTP_MESSAGE:
		answer_message(fd, "sctp");
		break;
	case DRAIN: case ECHO: case CONTROL:
		read_connection(index);
		break;
	case POWER_BUTTON:
		read_button(fd);
		break;
	}
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

static void leave(int signal_number)
{
	(void)signal_number;
	_exit(0);
}

static void prepare_machine(void)
{
	static const char *const network_modules[] = {
		"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev",
		"virtio_pci", "failover", "net_failover", "virtio_net", NULL};
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	load_modules(network_modules);
}

int main(int argc, char **argv)
{
	static const char *const panic_modules[] = {"pvpanic", "pvpanic-mmio", "pvpanic-pci", NULL};
	static const char *const sctp_modules[] = {
		"crc32c_generic", "libcrc32c", "udp_tunnel", "ip6_udp_tunnel", "sctp", NULL};
	is_container = argc > 1 && !strncmp(argv[1], "lab.", 4);
	signal(SIGPIPE, SIG_IGN);
	if (is_container)
		signal(SIGTERM, leave);
	else
		prepare_machine();
	load_settings(argc, argv);
	read_setting("lab.name=", guest_name, sizeof guest_name);
	configure_network();
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
	for (;;) {
		poll(watched, watched_count, -1);
		for (int i = watched_count - 1; i >= 0; i--)
			if (watched[i].revents)
				handle(i);
	}
}
