import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import kafka.Kafka;
import kafka.tools.StorageTool;

/** Kafka as one node on loopback: its own broker and controller. Arguments: its settings, its folder, and who logs in by SCRAM as `NAME=PASSWORD`. */
public final class Server {
    public static void main(String[] arguments) throws Exception {
        if (!Files.exists(Path.of(arguments[1], "meta.properties"))) {
            List<String> format = new ArrayList<>(List.of("format", "--config", arguments[0], "--cluster-id", "dGhlLXRlc3RzLWNsdXN0ZQ"));
            String[] user = arguments[2].split("=", 2);
            for (String mechanism : List.of("SCRAM-SHA-256", "SCRAM-SHA-512")) {
                format.add("--add-scram");
                format.add(mechanism + "=[name=" + user[0] + ",password=" + user[1] + "]");
            }
            int status = StorageTool.execute(format.toArray(new String[0]), System.out);
            if (status != 0) {
                System.exit(status);
            }
        }
        Kafka.main(new String[] {arguments[0]});
    }
}
