import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Kafka's own clients, told on standard input what to do, one line each, and answering with lines up to one that is a dot:
 * `create TOPIC PARTITIONS [KEY=VALUE…]`, `grow TOPIC PARTITIONS`, `write TOPIC COUNT` (messages of somebody else), `read TOPIC`, whose lines are partition, the partition by the default partitioner, key, headers and value, with tabs between.
 */
public final class Peer {
    private static final Duration WAIT = Duration.ofMillis(500);

    private final Map<String, Object> settings;
    private final PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);

    private Peer(String broker) {
        settings = Map.of("bootstrap.servers", broker);
    }

    public static void main(String[] arguments) throws Exception {
        Peer peer = new Peer(arguments[0]);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            peer.act(line.split(" "));
            peer.out.println(".");
            peer.out.flush();
        }
    }

    private void act(String[] words) throws Exception {
        switch (words[0]) {
            case "create" -> create(words);
            case "grow" -> {
                try (Admin admin = Admin.create(settings)) {
                    admin.createPartitions(Map.of(words[1], org.apache.kafka.clients.admin.NewPartitions.increaseTo(Integer.parseInt(words[2])))).all().get();
                }
            }
            case "write" -> write(words[1], Integer.parseInt(words[2]));
            case "read" -> read(words[1]);
            default -> throw new IllegalArgumentException(words[0]);
        }
    }

    private void create(String[] words) throws Exception {
        Map<String, String> more = new HashMap<>();
        for (int word = 3; word < words.length; word++) {
            String[] pair = words[word].split("=", 2);
            more.put(pair[0], pair[1]);
        }
        NewTopic topic = new NewTopic(words[1], Optional.of(Integer.valueOf(words[2])), Optional.empty()).configs(more);
        try (Admin admin = Admin.create(settings)) {
            admin.createTopics(List.of(topic)).all().get();
        }
    }

    private void write(String topic, int count) {
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            for (int message = 0; message < count; message++) {
                producer.send(new ProducerRecord<>(topic, "somebody-" + message, "else"));
            }
            producer.flush();
        }
    }

    private void read(String topic) {
        Map<String, Object> reading = new HashMap<>(settings);
        reading.put("check.crcs", true);
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(reading, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            consumer.partitionsFor(topic).forEach(found -> partitions.add(new TopicPartition(topic, found.partition())));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(partition -> consumer.position(partition) < ends.get(partition))) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(WAIT)) {
                    print(record, partitions.size());
                }
            }
        }
    }

    private void print(ConsumerRecord<byte[], byte[]> record, int partitions) {
        StringBuilder headers = new StringBuilder();
        for (Header header : record.headers()) {
            headers.append(header.key()).append('=').append(new String(header.value(), StandardCharsets.UTF_8)).append('|');
        }
        int expected = org.apache.kafka.clients.producer.internals.BuiltInPartitioner.partitionForKey(record.key(), partitions);
        String value = new String(record.value(), StandardCharsets.UTF_8);
        out.println(String.join("\t", "" + record.partition(), "" + expected, new String(record.key(), StandardCharsets.UTF_8), headers, value));
    }
}
