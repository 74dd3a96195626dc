/* The floor of the latency benchmark, on the board: waits for edges as the gateway does, and gives each to the broker at once.
 *   poll CHIP OFFSET TOPIC     publishes at QoS 1, one message for each edge, with the level as its payload
 */
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <linux/gpio.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int broker(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(1883), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	/* CONNECT: MQTT 3.1.1, clean session, no keep-alive, the client "poll". */
	const char hello[] = "\x10\x10\0\4MQTT\4\2\0\0\0\4poll";
	char answer[4];
	int on = 1, s = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(s, (struct sockaddr *)&to, sizeof to) || setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) ||
	    write(s, hello, 18) != 18 || recv(s, answer, 4, MSG_WAITALL) != 4 || answer[3])
		err(1, "the broker");
	return s;
}

int main(int count, char **words)
{
	struct gpio_v2_line_request line = { .num_lines = 1, .config.flags = GPIO_V2_LINE_FLAG_INPUT |
		GPIO_V2_LINE_FLAG_EDGE_RISING | GPIO_V2_LINE_FLAG_EDGE_FALLING };
	struct gpio_v2_line_event edge;
	unsigned char packet[128] = { 0x32 }, thrown[256];
	if (count != 4 || strlen(words[3]) > 100)
		errx(64, "CHIP OFFSET TOPIC");
	line.offsets[0] = atoi(words[2]);
	strcpy(line.consumer, "poll");
	if (ioctl(open(words[1], O_RDWR), GPIO_V2_GET_LINE_IOCTL, &line))
		err(1, "%s, line %s", words[1], words[2]);
	int topic = strlen(words[3]), s = broker();
	packet[1] = 2 + topic + 2 + 1;
	packet[3] = topic;
	memcpy(packet + 4, words[3], topic);
	puts("ready");
	fflush(stdout);
	for (unsigned id = 1;; id = id % 65535 + 1) {
		struct pollfd both[2] = { { line.fd, POLLIN }, { s, POLLIN } };
		poll(both, 2, -1);
		/* Acknowledgements. */
		if (both[1].revents && read(s, thrown, sizeof thrown) <= 0)
			err(1, "the broker");
		if (!both[0].revents)
			continue;
		if (read(line.fd, &edge, sizeof edge) != sizeof edge)
			err(1, "an edge");
		packet[4 + topic] = id >> 8;
		packet[5 + topic] = id;
		packet[6 + topic] = edge.id == GPIO_V2_LINE_EVENT_RISING_EDGE ? '1' : '0';
		if (write(s, packet, 7 + topic) != 7 + topic)
			err(1, "the broker");
	}
}
