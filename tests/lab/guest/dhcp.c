/* DHCP (RFC 2131), as little as gets one lease. */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "guest.h"

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

void dhcp(void)
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
