/* Sees what a gateway says of itself, and switches one of its points on, with Paho for C (libpaho-mqtt-dev):
 *
 *   cc -o client client.c -lpaho-mqtt3c
 *   ./client pump-house-7 relays/pump       MQTT_HOST, MQTT_PORT, MQTT_USER, MQTT_PASSWORD say where and who
 *
 * Ends with 0 when the command was done. */
#include <MQTTClient.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *from_environment(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}

/* The next message as text, or NULL after a second. */
static char *next(MQTTClient client, char *topic, size_t size) {
    MQTTClient_message *message = NULL;
    char *name = NULL, *text;
    int length;
    if (MQTTClient_receive(client, &name, &length, &message, 1000) < 0 || message == NULL) return NULL;
    snprintf(topic, size, "%s", name);
    text = strndup(message->payload, message->payloadlen);
    MQTTClient_freeMessage(&message);
    MQTTClient_free(name);
    return text;
}

int main(int count, char **words) {
    char url[256], command[256], id[64], topics[4][256], set[256], topic[512];
    int seen[3] = {0}, done = 0;
    if (count != 3) return 64;
    snprintf(url, sizeof url, "tcp://%s:%s", from_environment("MQTT_HOST", "localhost"), from_environment("MQTT_PORT", "1883"));
    snprintf(topics[0], 256, "sluicegate/%s/status", words[1]);
    snprintf(topics[1], 256, "sluicegate/%s/health", words[1]);
    snprintf(topics[2], 256, "sluicegate/%s/%s", words[1], words[2]);
    snprintf(topics[3], 256, "sluicegate/%s/%s/outcome", words[1], words[2]);
    snprintf(set, 256, "sluicegate/%s/%s/set", words[1], words[2]);

    MQTTClient client;
    MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer;
    options.username = getenv("MQTT_USER");
    options.password = getenv("MQTT_PASSWORD");
    if (MQTTClient_create(&client, url, "", MQTTCLIENT_PERSISTENCE_NONE, NULL) || MQTTClient_connect(client, &options)) {
        fprintf(stderr, "%s does not let me in\n", url);
        return 1;
    }
    for (int i = 0; i < 4; i++)
        if (MQTTClient_subscribe(client, topics[i], 1)) return 1;

    /* An id is against acting twice, a ttl against acting late. */
    snprintf(id, sizeof id, "c-%lx-%lx", (long)time(NULL), (long)getpid());
    snprintf(command, sizeof command, "{\"value\":true,\"id\":\"%s\",\"ttl\":\"10s\"}", id);
    /* What is retained comes at once. Then the same command again, each second, until its outcome is told. */
    for (time_t end = time(NULL) + 35, last = 0; time(NULL) < end && !done;) {
        if (seen[0] && seen[1] && seen[2] && time(NULL) > last) {
            MQTTClient_publish(client, set, strlen(command), command, 1, 0, NULL);
            last = time(NULL);
        }
        char *text = next(client, topic, sizeof topic);
        if (text == NULL) continue;
        for (int i = 0; i < 3; i++)
            if (strcmp(topic, topics[i]) == 0) seen[i] = 1;
        printf("%s %s\n", topic, text);
        if (strstr(text, id) && strcmp(topic, topics[3]) == 0 && !strstr(text, "\"outcome\":\"rejected\"")) {
            done = 1 + (strstr(text, "\"outcome\":\"done\"") != NULL);
        }
        free(text);
    }
    if (!done) printf("nobody answered\n");
    MQTTClient_disconnect(client, 1000);
    MQTTClient_destroy(&client);
    return done == 2 ? 0 : 1;
}
