/* The guest's addresses and routes, set by ioctl: no netlink for so little. */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/route.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest.h"

static void set_device_flags(const char *device, short flags)
{
	struct ifreq request = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	strcpy(request.ifr_name, device);
	request.ifr_flags = flags;
	if (ioctl(fd, SIOCSIFFLAGS, &request))
		say("init: %s: flags: %s\n", device, strerror(errno));
	close(fd);
}

void network_down(void)
{
	set_device_flags(DEVICE, 0);
}

void set_address4(struct in_addr address, struct in_addr netmask)
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

void set_gateway4(struct in_addr gateway)
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

void configure_network(void)
{
	char list[256];
	set_device_flags("lo", IFF_UP | IFF_RUNNING);
	for (int i = 0; i < 500 && !if_nametoindex(DEVICE); i++)
		usleep(10000);
	/* Duplicate address detection would keep an IPv6 address unusable for a second or more. */
	write_text("/proc/sys/net/ipv6/conf/" DEVICE "/accept_dad", "0");
	write_text("/proc/sys/net/ipv6/conf/" DEVICE "/accept_ra", "0");
	set_device_flags(DEVICE, IFF_UP | IFF_RUNNING);
	read_setting("lab.address=", list, sizeof list);
	if (!strcmp(list, "dhcp")) {
		dhcp();
		return;
	}
	for_each_in_list(list, set_address);
	read_setting("lab.gateway=", list, sizeof list);
	for_each_in_list(list, set_gateway);
}
